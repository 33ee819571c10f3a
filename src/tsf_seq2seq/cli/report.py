"""The script that makes the report."""

import sys
from pathlib import Path

from tsf_seq2seq.checkpoints.checkpoint import checkpoint_extras
from tsf_seq2seq.cli.arguments import OF_NETWORK, script_parser
from tsf_seq2seq.cli.loading import experiment, load_network
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.folder import claimed
from tsf_seq2seq.report.inputs import Inputs
from tsf_seq2seq.report.report import Experiment, write_report

INPUTS = {
    "evaluation": "metrics.csv of evaluate_brats_tsf_seq2seq_2d.py, best with --all-tasks",
    "stage1": "run of train_brats_seq2seq_2d.py: log.csv",
    "stage2": "run of train_brats_tsf_seq2seq_2d.py: log.csv",
    "fusion-weights": "results of fusion_weights.py",
    "tsem": "results of tsem.py",
    "single-source": "metrics.csv of evaluate_brats_seq2seq_2d.py",
    "trust": "results of faithfulness.py, error_estimation.py and evaluate_tumour.py, or the "
    "folder that holds theirs",
    "adaptation": "metrics.csv of evaluate.py --like, where --evaluation has no such methods",
}


def make_report(description: str | None) -> None:
    """Write the page."""
    optional = ("load", *OF_NETWORK, "root", "batch_size")
    meanings = {
        "load": "weights, for pictures of cases",
        "root": "data set folder (else the settings')",
    }
    parser = script_parser(description, ["output"], optional, **meanings)
    for name, meaning in INPUTS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="FOLDER", help=meaning)
    parser.add_argument(
        "--viewer", type=Path, metavar="JS", help="NiiVue's niivue.umd.js, which make viewer brings"
    )
    parser.add_argument("--title", default="Synthesis of missing MRI sequences")
    arguments = parser.parse_args()
    names = (name.replace("-", "_") for name in INPUTS)
    inputs = Inputs(**{name: getattr(arguments, name) for name in names})
    missing = [path for path in vars(inputs).values() if path is not None and not path.is_dir()]
    if missing:
        raise UserError(f"{missing[0]} is not a folder")
    with claimed(arguments.output):
        shown = None
        if arguments.load is not None:
            config = experiment(arguments)
            network = load_network(arguments, config)
            extras = checkpoint_extras(arguments.load, network)
            shown = Experiment(network, config, arguments.load, arguments.batch_size, extras)
        page = write_report(
            inputs,
            shown,
            arguments.output,
            ["python", *sys.argv],
            arguments.title,
            arguments.viewer,
        )
        print(f"report: {page}")
        print(
            f"with the volume viewer: python -m http.server -d {page.parent}, http://localhost:8000"
        )
