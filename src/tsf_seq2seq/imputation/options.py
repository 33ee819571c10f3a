"""How an imputation is made: what a user may choose of it, whatever the subject."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.imputation.slices import BATCH_SIZE

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class ImputeOptions:
    """As `impute` explains each. UserError for a precision that there isn't."""

    sources: Sequence[str] | None = None
    precision: str = "fp32"
    resample: bool = False
    batch_size: int = BATCH_SIZE
    synthetic_sources: bool = False
    finish: Sequence[str] | None = None
    contributions: bool = False
    labels: Path | str | None = None
    interval: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(f"precision must be {' or '.join(PRECISIONS)}, not {self.precision}")
