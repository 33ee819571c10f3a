"""Check every subject of a data set: list those that can't be used, and why, and sum up the rest.

Exit code 0: all good; 1: some subjects have defects; 2: the check could not be run.
"""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("data:check_dataset", __doc__)
