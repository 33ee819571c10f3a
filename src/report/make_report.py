"""One page of what an experiment gave: scores, cases, explanations, training, a volume viewer."""

import argparse
import dataclasses
import sys
from pathlib import Path

from tsf_seq2seq.cli.arguments import add_config_arguments, add_device_argument, positive_number
from tsf_seq2seq.cli.loading import experiment, load_network
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.report.inputs import Inputs
from tsf_seq2seq.report.report import Experiment, write_report

FOLDERS = {
    "evaluation": "metrics.csv of evaluate_brats_tsf_seq2seq_2d.py, best with --all-tasks",
    "stage1": "run of train_brats_seq2seq_2d.py: log.csv",
    "stage2": "run of train_brats_tsf_seq2seq_2d.py: log.csv",
    "fusion-weights": "results of fusion_weights.py",
    "tsem": "results of tsem.py",
    "single-source": "metrics.csv of evaluate_brats_seq2seq_2d.py",
    "trust": "results of faithfulness.py, error_estimation.py and evaluate_tumour.py, or the "
    "folder that holds theirs",
}


def main() -> None:
    arguments = parse_arguments()
    folders = {name.replace("-", "_"): None for name in FOLDERS}
    inputs = Inputs(**{name: getattr(arguments, name) for name in folders})
    missing = [path for path in vars(inputs).values() if path is not None and not path.is_dir()]
    if missing:
        raise UserError(f"{missing[0]} is not a folder")
    page = write_report(
        inputs,
        load_experiment(arguments),
        arguments.output,
        ["python", *sys.argv],
        arguments.title,
        arguments.viewer,
    )
    print(f"report: {page}")
    print(f"with the volume viewer: python -m http.server -d {page.parent}, http://localhost:8000")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_device_argument(parser)
    add_config_arguments(parser, required=False)
    parser.add_argument(
        "-l", "--load", type=Path, metavar="PTH", help="stage 2 weights, for pictures of cases"
    )
    parser.add_argument("-m", "--seq2seq", type=Path, metavar="PTH", help="stage 1 weights of -l's")
    parser.add_argument("-r", "--root", type=Path, help="folder of the subjects, else -c's or -l's")
    for name, meaning in FOLDERS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="FOLDER", help=meaning)
    parser.add_argument(
        "--viewer", type=Path, metavar="JS", help="NiiVue's niivue.umd.js, which make viewer brings"
    )
    parser.add_argument("--title", default="Synthesis of missing MRI sequences")
    parser.add_argument("--batch-size", type=positive_number, default=8, help="stacks at once")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the report")
    return parser.parse_args()


def load_experiment(arguments: argparse.Namespace) -> Experiment | None:
    if arguments.load is None:
        return None
    config = experiment(arguments)
    if arguments.root is not None:
        config = dataclasses.replace(
            config, data=dataclasses.replace(config.data, root=arguments.root)
        )
    network = load_network(arguments, config)
    return Experiment(network, config, arguments.load, arguments.batch_size)


if __name__ == "__main__":
    run_script(main)
