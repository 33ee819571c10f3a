"""Adapt a checkpoint to a scanner, by complete subjects of it."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("adapt:adapt", __doc__)
