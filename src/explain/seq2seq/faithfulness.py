"""Do the fusion weights say what a source brings? ω beside exact Shapley values of the metrics.

Reads the metrics.csv of evaluate_brats_tsf_seq2seq_2d.py with --all-tasks --methods tsf
tsf_without_attention mean_image (and others), and the table of fusion_weights.py.
"""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("trust:check_faithfulness", __doc__)
