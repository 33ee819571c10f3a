"""TSF-Seq2Seq: synthesis of missing brain MRI sequences with task-specific fusion."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsf_seq2seq.checkpoints.checkpoint import load_model
    from tsf_seq2seq.checkpoints.published import load_published
    from tsf_seq2seq.imputation import Imputation, impute

__version__ = "0.1.0"
__all__ = ["Imputation", "impute", "load_model", "load_published"]
_HOMES = {
    "Imputation": "imputation",
    "impute": "imputation",
    "load_model": "checkpoints.checkpoint",
    "load_published": "checkpoints.published",
}


def __getattr__(name: str) -> Any:
    """What users import; only who asks for it waits for PyTorch."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
