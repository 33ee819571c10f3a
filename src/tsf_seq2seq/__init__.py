"""TSF-Seq2Seq: synthesis of missing brain MRI sequences with task-specific fusion."""

__version__ = "0.1.0"
