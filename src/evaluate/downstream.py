"""What synthetic sequences are worth to a tumour segmentation trained on real ones (by MONAI)."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("downstream:evaluate_downstream", __doc__)
