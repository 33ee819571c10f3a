"""One page of what an experiment gave: scores, cases, explanations, training, a volume viewer."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("report:make_report", __doc__)
