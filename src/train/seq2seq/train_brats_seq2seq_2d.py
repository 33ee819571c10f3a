"""Train Seq2Seq (stage 1): any source sequence to any target sequence."""

from tsf_seq2seq.cli.train import train_seq2seq
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: train_seq2seq(__doc__))
