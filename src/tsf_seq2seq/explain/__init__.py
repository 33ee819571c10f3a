"""The explanations, and how far they hold."""
