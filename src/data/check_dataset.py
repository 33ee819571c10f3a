"""Check every subject of a data set: list those that can't be used, and why, and sum up the rest.

Exit code 0: all good; 1: some subjects have defects; 2: the check could not be run.
"""

from tsf_seq2seq.cli.data import check_dataset
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: check_dataset(__doc__))
