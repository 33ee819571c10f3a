"""A subject's missing sequences from those that exist: `impute`, and what its command needs."""

from tsf_seq2seq.imputation.subject import Imputation, impute, impute_targets

__all__ = ["Imputation", "impute", "impute_targets"]
