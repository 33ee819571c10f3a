"""Split a data set into train, valid and test CSVs (name,mask[,site]), patients kept together."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("data:make_split", __doc__)
