"""Train TSF-Seq2Seq (stage 2): any set of source sequences to any target sequence."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("train:train_tsf_seq2seq", __doc__)
