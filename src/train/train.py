"""Train the network that the settings name: any of the table of networks."""

from tsf_seq2seq.cli.train import train_network
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: train_network(__doc__))
