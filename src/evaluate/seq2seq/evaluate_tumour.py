"""How good predictions are in tumour and healthy tissue, and from slice to slice.

Reads the predictions that evaluate_brats_tsf_seq2seq_2d.py or its stage 1 sister saved.
"""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("trust:evaluate_tumour", __doc__)
