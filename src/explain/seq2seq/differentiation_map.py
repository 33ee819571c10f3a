"""Imaging-differentiation maps of the test subjects: what only the target sequence shows."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("explain:map_differentiation", __doc__)
