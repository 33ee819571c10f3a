"""The networks: building blocks first, `Seq2Seq` (stage 1) and `TSFSeq2Seq` (stage 2) on top."""

from tsf_seq2seq.models.seq2seq import Seq2Seq
from tsf_seq2seq.models.tsf_seq2seq import TSFSeq2Seq

__all__ = ["Seq2Seq", "TSFSeq2Seq"]
