"""From a subject to outputs: windows, stacks, what synthesizes."""
