"""Fusion weights of every task: a table, and the paper's Fig. 3."""

import argparse
from pathlib import Path

from tsf_seq2seq.cli.arguments import add_tsf_arguments
from tsf_seq2seq.cli.loading import experiment, load_network
from tsf_seq2seq.errors import run_script
from tsf_seq2seq.explain.fusion_figure import plot_fusion_weights
from tsf_seq2seq.explain.fusion_weights import (
    fusion_table,
    fusion_tasks,
    fusion_weight_table,
    omegas,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_tsf_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--with-reconstructions", action="store_true", help="targets among the sources too"
    )
    arguments = parser.parse_args()
    config = experiment(arguments)
    network, names = load_network(arguments, config), list(config.data.sequences)
    table = fusion_table(network, fusion_tasks(len(names), arguments.with_reconstructions))
    shown = fusion_weight_table(omegas(table, names), names)
    print(shown.markdown())
    shown.write_csv(arguments.output / "fusion_weights.csv")
    plot_fusion_weights(table, names, arguments.output / "fusion_weights")
    print(f"fusion_weights.csv, .pdf and .png are in {arguments.output}")


if __name__ == "__main__":
    run_script(main)
