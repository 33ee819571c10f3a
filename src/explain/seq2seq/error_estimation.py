"""Do TSEM and error map show where the synthesis errs? Beside estimates that need no target either.

An interrupted run goes on where it stopped.
"""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("trust:check_error_estimates", __doc__)
