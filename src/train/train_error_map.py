"""Train an error map for a network: how far its syntheses are off, voxel by voxel, calibrated.

The network stays as it is; a checkpoint with both is written.
"""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("train:train_error_map", __doc__)
