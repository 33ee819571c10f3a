"""Fusion weights of every task: a table, and the paper's Fig. 3."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("explain:explain_fusion_weights", __doc__)
