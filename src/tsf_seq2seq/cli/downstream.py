"""The script that says what synthetic sequences are worth to a segmentation."""

import argparse
from pathlib import Path

from tqdm import tqdm

from tsf_seq2seq.cli.arguments import SETTINGS, positive_number, script_parser
from tsf_seq2seq.cli.loading import find_device, open_compared
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.downstream import (
    LEFT_OUT_SEQUENCE,
    REAL_SEQUENCE,
    SegmentationScore,
    downstream_tables,
    segmentation_scores,
)
from tsf_seq2seq.evaluation.segmentation import check_monai, labelled, train_segmenter
from tsf_seq2seq.files.folder import claimed
from tsf_seq2seq.files.writing import write_texts
from tsf_seq2seq.models.base import variant_for
from tsf_seq2seq.synthesis.synthesizers import (
    MEAN_IMAGE,
    NetworkSynthesizer,
    Synthesizer,
    fit_baselines,
)
from tsf_seq2seq.tables import rows_text
from tsf_seq2seq.tasks import all_tasks

SEGMENTER = "segmenter.pth"


def evaluate_downstream(description: str | None) -> None:
    """Train a segmenter on real sequences; give it test subjects with a sequence synthesized."""
    optional = ("device", *SETTINGS, "max_subjects", "batch_size", "seed")
    parser = script_parser(description, ["output"], optional)
    parser.add_argument(
        *("-l", "--load"), nargs="+", type=Path, required=True, metavar="PTH", help="checkpoints"
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="of the checkpoints (else their folders')"
    )
    parser.add_argument("--steps", type=positive_number, default=2000, metavar="N")
    parser.add_argument("--slices", type=positive_number, default=8, metavar="N", help="in a step")
    arguments = parser.parse_args()
    check_monai()
    with claimed(arguments.output):
        _evaluate(arguments)


def _evaluate(arguments: argparse.Namespace) -> None:
    (models, config), output = open_compared(arguments), arguments.output
    for name in (REAL_SEQUENCE, LEFT_OUT_SEQUENCE, MEAN_IMAGE):
        if name in models:
            raise UserError(f"--names must not call a checkpoint '{name}'")
    data = config.data
    training = labelled(config, find_subjects(data, data.train), data.train)
    tested = labelled(config, find_subjects(data, data.test), data.test)
    n, size = len(data.sequences), arguments.batch_size
    tasks = [task for task in all_tasks(n) if len(task.sources) == n - 1]
    synthesizers: list[Synthesizer] = [
        NetworkSynthesizer(name, model.network, [variant_for(model.network, tasks)], size)
        for name, model in models.items()
    ]
    try:
        synthesizers += fit_baselines(config, [MEAN_IMAGE], tasks)
    except UserError as error:  # scans on grids of their own have none
        print(f"without the mean image: {error}")
    segmenter = train_segmenter(
        *(config, training, output / SEGMENTER, arguments.steps, arguments.slices),
        *(arguments.seed, find_device(arguments.device)),
    )
    rows: list[SegmentationScore] = []
    for subject in tqdm(tested[: arguments.max_subjects], unit="subject", desc="segmenting"):
        rows += segmentation_scores(segmenter, config, subject, synthesizers, size)
    shown = "\n\n".join(table.markdown() for table in downstream_tables(rows))
    text = f"# Segmentation with a synthesized sequence\n\n{shown}\n"
    files = {"downstream.csv": rows_text(SegmentationScore, rows), "downstream.md": text}
    write_texts(output, files)
    print(text)
    print(f"downstream.csv, .md and {SEGMENTER} are in {output}")
