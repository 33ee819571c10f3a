"""Simulated subjects on the MNI152 anatomy."""
