"""The script that adapts a checkpoint to a scanner."""

from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from tsf_seq2seq.checkpoints.checkpoint import open_model, save_model
from tsf_seq2seq.cli.arguments import script_parser
from tsf_seq2seq.cli.loading import find_device
from tsf_seq2seq.errors import UserError, printable
from tsf_seq2seq.explain.map_shares import plot_shares, share_table
from tsf_seq2seq.files.writing import check_place
from tsf_seq2seq.imputation.options import ImputeOptions
from tsf_seq2seq.imputation.references import References, find_references
from tsf_seq2seq.imputation.slices import BATCH_SIZE


def adapt(description: str | None) -> None:
    """Write the checkpoint with the maps of all tasks that the references allow."""
    parser = script_parser(
        description,
        ["load", "output"],
        ["device", "batch_size"],
        load="a checkpoint of ours",
        output="checkpoint to write, .pth; its table and figure lie beside it",
    )
    parser.set_defaults(batch_size=BATCH_SIZE)
    parser.add_argument(
        "--like",
        nargs="+",
        required=True,
        type=Path,
        metavar="SUBJECT",
        help="complete subjects of the scanner: folders or files",
    )
    parser.add_argument(
        "--resample", action="store_true", help="bring sequences on other grids to the first one's"
    )
    arguments = parser.parse_args()
    output: Path = arguments.output
    if output.suffix != ".pth":
        raise UserError(f"-o must end in .pth, not {output.name}")
    check_place(output)
    model = open_model(arguments.load, find_device(arguments.device))
    subjects = find_references(arguments.like, model)
    options = ImputeOptions(resample=arguments.resample, batch_size=arguments.batch_size)
    references = References(model, subjects, options)
    references.check_model()
    print(printable(f"references: {', '.join(subjects)}"))
    tasks = references.tasks
    bar = tqdm(tasks, unit="task", desc="adapting", disable=not tasks)
    adaptation = references.adaptation_of_all(bar)
    for text in references.differences(adaptation):
        print(printable(f"warning: {text}"))
    table = share_table(adaptation, model.sequences)
    save_model(output, replace(model, adaptation=adaptation))
    table.write_csv(output.with_suffix(".csv"))
    plot_shares(adaptation, model.sequences, output.with_suffix(""))
    print(table.markdown())
    print(f"{output} is adapted; {output.with_suffix('.png')} shows what its maps make of what")
