"""Split a data set into train, valid and test CSVs (name,mask), seeded, patients kept together."""

from tsf_seq2seq.cli.data import make_split
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: make_split(__doc__))
