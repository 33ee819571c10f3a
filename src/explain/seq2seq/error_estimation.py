"""Does TSEM show where the synthesis errs? Against the true error, beside rival estimates.

An interrupted run goes on where it stopped.
"""

from tsf_seq2seq.cli.trust import check_error_estimates
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: check_error_estimates(__doc__))
