"""Do the fusion weights say what a source brings? ω beside exact Shapley values of the metrics.

Reads the metrics.csv of evaluate_brats_tsf_seq2seq_2d.py with --all-tasks --methods tsf
tsf_without_attention mean_image (and others), and the table of fusion_weights.py.
"""

import argparse
from pathlib import Path

from tsf_seq2seq.errors import run_script
from tsf_seq2seq.evaluation.scores import read_scores
from tsf_seq2seq.explain.attention_gain import (
    AttentionGain,
    attention_gain_table,
    attention_gains,
)
from tsf_seq2seq.explain.faithfulness import (
    Agreement,
    Faithfulness,
    agreements,
    faithfulness,
    faithfulness_markdown,
)
from tsf_seq2seq.explain.fusion_weights import read_fusion_csv
from tsf_seq2seq.explain.source_values import SourceValue, source_values
from tsf_seq2seq.files import write_text
from tsf_seq2seq.tables import write_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", type=Path, help="metrics.csv of all tasks, or its folder")
    parser.add_argument(
        "--fusion-weights", type=Path, required=True, metavar="CSV", help="or its folder"
    )
    parser.add_argument("--method", help="of the metrics, the one examined (default: the first)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    arguments = parser.parse_args()
    metrics, weights = arguments.metrics, arguments.fusion_weights
    scores = read_scores(metrics / "metrics.csv" if metrics.is_dir() else metrics)
    omega = read_fusion_csv(weights / "fusion_weights.csv" if weights.is_dir() else weights)
    sequences = next(iter(omega.values()), {})
    values = source_values(scores, list(sequences), arguments.method)
    rows = faithfulness(values, omega)
    found, gains = agreements(rows), attention_gains(scores, arguments.method)
    output = arguments.output
    write_rows(output / "shapley.csv", SourceValue, values)
    write_rows(output / "faithfulness.csv", Faithfulness, rows)
    write_rows(output / "agreement.csv", Agreement, found)
    write_rows(output / "attention_gain.csv", AttentionGain, gains)
    text = f"# Fusion weights and what sources bring\n\n{faithfulness_markdown(rows, found)}\n"
    text += f"\n## What f_A brings\n\n{attention_gain_table(gains).markdown()}\n"
    write_text(output / "faithfulness.md", text)
    print(text)
    print(f"shapley.csv, faithfulness.csv and .md, agreement and attention gain are in {output}")


if __name__ == "__main__":
    run_script(main)
