"""Is one method better than the others? Paired tests over subjects, from a metrics.csv."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("trust:compare_methods", __doc__)
