"""Turn a data set into a store, of which crops are read many times faster; or verify one.

Run it again after an interruption, or when the data set has changed: it does what is left.
Exit code 0: all good; 1: some subjects have defects; 2: the store could not be made.
"""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("data:prepare_store", __doc__)
