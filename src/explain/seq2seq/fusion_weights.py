"""Fusion weights of every task: a table, and the paper's Fig. 3."""

from tsf_seq2seq.cli.explain import explain_fusion_weights
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: explain_fusion_weights(__doc__))
