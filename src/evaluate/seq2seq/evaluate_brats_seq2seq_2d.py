"""Evaluate Seq2Seq (stage 1): single-source synthesis on the test split."""

from tsf_seq2seq.cli.evaluate import evaluate_seq2seq
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: evaluate_seq2seq(__doc__))
