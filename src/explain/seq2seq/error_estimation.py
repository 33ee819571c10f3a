"""Does TSEM show where the synthesis errs? Against the true error, beside rival estimates.

An interrupted run goes on where it stopped.
"""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("trust:check_error_estimates", __doc__)
