"""Evaluate TSF-Seq2Seq (stage 2) on the test split by the paper's protocol."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("evaluate:evaluate_tsf_seq2seq", __doc__)
