"""One page of what an experiment gave: scores, cases, explanations, training, a volume viewer."""

from tsf_seq2seq.cli.report import make_report
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: make_report(__doc__))
