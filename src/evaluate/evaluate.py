"""Evaluate checkpoints of any networks beside each other, and baselines, on the test split."""

from tsf_seq2seq.cli.evaluate import evaluate_networks
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: evaluate_networks(__doc__))
