"""Train Seq2Seq (stage 1): any source sequence to any target sequence."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("train:train_seq2seq", __doc__)
