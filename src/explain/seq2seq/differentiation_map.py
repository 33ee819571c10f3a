"""Imaging-differentiation maps of the test subjects: what only the target sequence shows."""

from tsf_seq2seq.cli.explain import map_differentiation
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: map_differentiation(__doc__))
