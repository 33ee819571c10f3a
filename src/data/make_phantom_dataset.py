"""Make the phantom data set: MNI152 anatomy with simulated t1, t1ce, t2, flair, or others."""

import argparse
from pathlib import Path

from tsf_seq2seq.errors import run_script
from tsf_seq2seq.phantom.protocols import FURTHER_SEQUENCES, SEQUENCES
from tsf_seq2seq.phantom.subject import write_phantom_dataset


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="new or empty folder"
    )
    parser.add_argument("-n", "--subjects", type=int, default=24, help="how many (default: 24)")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same files (default: 0)"
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
        "--processes", type=int, default=1, help="subjects made at once (default: 1)"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    names = write_phantom_dataset(
        args.output,
        args.subjects,
        seed=args.seed,
        spacing=float(args.spacing),
        noise_free=args.noise_free,
        processes=args.processes,
        sequences=args.sequences,
    )
    extra = " and noise-free volumes" if args.noise_free else ""
    print(
        f"Wrote {len(names)} subjects ({names[0]} to {names[-1]}) with "
        f"{', '.join(args.sequences)}, seg{extra} at {args.spacing} mm to {args.output}"
    )


if __name__ == "__main__":
    run_script(main)
