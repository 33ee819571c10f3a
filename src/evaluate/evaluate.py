"""Evaluate checkpoints of any networks beside each other, and baselines, on the test split."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("evaluate:evaluate_networks", __doc__)
