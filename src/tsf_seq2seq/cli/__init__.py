"""The command line: what the scripts under src/ and tsf-impute run."""

from tsf_seq2seq.cli.evaluate import evaluate_networks, evaluate_seq2seq, evaluate_tsf_seq2seq
from tsf_seq2seq.cli.impute import impute_sequences
from tsf_seq2seq.cli.train import train_network, train_seq2seq, train_tsf_seq2seq

__all__ = [
    "evaluate_networks",
    "evaluate_seq2seq",
    "evaluate_tsf_seq2seq",
    "impute_sequences",
    "train_network",
    "train_seq2seq",
    "train_tsf_seq2seq",
]
