"""The command line: what the scripts under src/ and tsf-impute run, a module for each kind."""

from tsf_seq2seq.errors import run_command


def tsf_impute() -> None:
    """The entry point tsf-impute."""
    run_command("impute:main")
