"""TSF-Seq2Seq: synthesis of missing brain MRI sequences with task-specific fusion."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsf_seq2seq.imputation import Imputation, impute

__version__ = "0.1.0"
__all__ = ["Imputation", "impute"]


def __getattr__(name: str) -> Any:
    """`impute` and its result; only who asks for them waits for PyTorch."""
    if name in __all__:
        from tsf_seq2seq import imputation

        return getattr(imputation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
