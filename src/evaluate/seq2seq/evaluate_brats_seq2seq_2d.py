"""Evaluate Seq2Seq (stage 1): single-source synthesis on the test split."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("evaluate:evaluate_seq2seq", __doc__)
