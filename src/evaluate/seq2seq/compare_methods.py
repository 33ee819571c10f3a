"""Is one method better than the others? Paired tests over subjects, from a metrics.csv."""

import argparse
from pathlib import Path

from tsf_seq2seq.errors import run_script
from tsf_seq2seq.evaluation.scores import read_scores
from tsf_seq2seq.evaluation.statistics import Comparison, compare, comparison_table
from tsf_seq2seq.files import write_text
from tsf_seq2seq.tables import write_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", type=Path, help="metrics.csv of an evaluation, or its folder")
    parser.add_argument("-o", "--output", type=Path, help="folder (else that of metrics.csv)")
    parser.add_argument("--method", help="compared with all others (default: the first)")
    arguments = parser.parse_args()
    metrics = arguments.metrics
    if metrics.is_dir():
        metrics = metrics / "metrics.csv"
    output = arguments.output or metrics.parent
    comparisons = compare(read_scores(metrics), arguments.method)
    text = comparison_table(comparisons).markdown()
    write_rows(output / "comparisons.csv", Comparison, comparisons)
    write_text(output / "comparisons.md", f"# Paired comparisons over subjects\n\n{text}\n")
    print(text)
    print(f"comparisons.csv and comparisons.md are in {output}")


if __name__ == "__main__":
    run_script(main)
