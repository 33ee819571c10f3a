"""Training: the loop, what each network optimizes, validation, state and log."""
