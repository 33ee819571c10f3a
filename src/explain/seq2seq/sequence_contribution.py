"""Which sequences give the others: contribution A, totipotency C_t, imaging differentiation C_d.

Reads the metrics.csv of evaluate_brats_seq2seq_2d.py.
"""

import argparse
from pathlib import Path

from tsf_seq2seq.errors import run_script
from tsf_seq2seq.evaluation.scores import read_scores
from tsf_seq2seq.explain.contribution import contribution_of, contribution_table, write_contribution
from tsf_seq2seq.explain.seq2seq_figures import plot_contribution


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "metrics", type=Path, help="metrics.csv of single-source synthesis, or its folder"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder (else that of metrics.csv)")
    parser.add_argument(
        "--sequences", nargs="+", default=(), metavar="NAME", help="which ones, in this order"
    )
    arguments = parser.parse_args()
    metrics = arguments.metrics
    if metrics.is_dir():
        metrics = metrics / "metrics.csv"
    output = arguments.output or metrics.parent
    contribution = contribution_of(read_scores(metrics), arguments.sequences)
    write_contribution(output, contribution)
    plot_contribution(contribution, output / "contribution")
    print(contribution_table(contribution).markdown())
    print(f"contribution.csv, .json, .pdf and .png are in {output}")


if __name__ == "__main__":
    run_script(main)
