"""What each source adds to the synthesis: Shapley values per voxel, which add up to the image."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("explain:map_contributions", __doc__)
