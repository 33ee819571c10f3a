"""The script that makes the phantom data set."""

from tsf_seq2seq.cli.arguments import positive_number, script_parser
from tsf_seq2seq.phantom.protocols import FURTHER_SEQUENCES, SEQUENCES
from tsf_seq2seq.phantom.subject import write_phantom_dataset


def make_phantom_dataset(description: str | None) -> None:
    """Simulate subjects and write them."""
    parser = script_parser(
        description,
        ["output"],
        ["seed", "processes"],
        output="new folder, or of an interrupted run",
    )
    parser.add_argument(
        "-n", "--number", type=positive_number, default=24, help="of subjects (default: 24)"
    )
    parser.add_argument(
        "--spacing", type=int, choices=(1, 2), default=1, help="voxel size in mm (default: 1)"
    )
    parser.add_argument(
        "--sequences",
        nargs="+",
        default=SEQUENCES,
        metavar="NAME",
        help=f"which, of {', '.join((*SEQUENCES, *FURTHER_SEQUENCES))} (default: the first four)",
    )
    parser.add_argument(
        "--noise-free", action="store_true", help="also write each sequence without noise"
    )
    parser.add_argument(
        "--sites",
        type=positive_number,
        metavar="K",
        help="scanners, each with a protocol that it keeps, which take turns at the subjects "
        "(default: each subject a scanner of its own)",
    )
    parser.add_argument(
        "--any-contrast",
        action="store_true",
        help="each subject of a scanner with contrasts beyond any hospital's, to pre-train on",
    )
    arguments = parser.parse_args()
    names = write_phantom_dataset(
        arguments.output,
        arguments.number,
        seed=arguments.seed,
        spacing=float(arguments.spacing),
        noise_free=arguments.noise_free,
        processes=arguments.processes,
        sequences=arguments.sequences,
        sites=arguments.sites,
        any_contrast=arguments.any_contrast,
    )
    sites = f" of {min(arguments.sites, len(names))} sites" if arguments.sites else ""
    extra = " and noise-free volumes" if arguments.noise_free else ""
    print(
        f"Wrote {len(names)} subjects{sites} ({names[0]} to {names[-1]}) with "
        f"{', '.join(arguments.sequences)}, seg{extra} at {arguments.spacing} mm to "
        f"{arguments.output}"
    )
