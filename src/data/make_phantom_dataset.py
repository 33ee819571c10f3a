"""Make the phantom data set: MNI152 anatomy with simulated t1, t1ce, t2, flair, or others."""

from tsf_seq2seq.cli.phantom import make_phantom_dataset
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: make_phantom_dataset(__doc__))
