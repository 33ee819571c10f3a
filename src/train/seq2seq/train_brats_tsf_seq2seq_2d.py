"""Train TSF-Seq2Seq (stage 2): any set of source sequences to any target sequence."""

from tsf_seq2seq.cli.train import train_tsf_seq2seq
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: train_tsf_seq2seq(__doc__))
