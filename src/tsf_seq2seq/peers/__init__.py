"""The comparison methods of the paper's Table 1."""
