"""Train the network that the settings name: any of the table of networks."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("train:train_network", __doc__)
