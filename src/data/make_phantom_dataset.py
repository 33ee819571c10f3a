"""Make the phantom data set: MNI152 anatomy with simulated t1, t1ce, t2, flair, or others."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("phantom:make_phantom_dataset", __doc__)
