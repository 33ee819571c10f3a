"""Which sequences give the others: contribution A, totipotency C_t, imaging differentiation C_d.

Reads the metrics.csv of evaluate_brats_seq2seq_2d.py.
"""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("explain:explain_contribution", __doc__)
