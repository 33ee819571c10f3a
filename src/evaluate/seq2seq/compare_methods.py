"""Is one method better than the others? Paired tests over subjects, from a metrics.csv."""

from tsf_seq2seq.cli.trust import compare_methods
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: compare_methods(__doc__))
