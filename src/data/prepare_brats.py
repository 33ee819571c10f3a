"""Turn a data set into a store, of which crops are read many times faster; or verify one.

Run it again after an interruption, or when the data set has changed: it does what is left.
Exit code 0: all good; 1: some subjects have defects; 2: the store could not be made.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from tsf_seq2seq.cli.arguments import add_config_arguments
from tsf_seq2seq.cli.loading import data_config
from tsf_seq2seq.data.check import subjects_of_folders, subjects_of_splits
from tsf_seq2seq.data.prepare import KEPT, STORED, prepare, verify
from tsf_seq2seq.data.store import VolumeStore
from tsf_seq2seq.errors import UserError, run_script


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser, required=False)
    parser.add_argument("-r", "--root", type=Path, help="data set folder (else data.root)")
    parser.add_argument(
        "--folders", action="store_true", help="all of the root, not the split CSVs'"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder of the store (else data.store)")
    parser.add_argument("--processes", type=int, default=1, help="subjects at once (default: 1)")
    parser.add_argument("--verify", action="store_true", help="only compare files and checksums")
    return parser.parse_args()


def count(outcomes: Iterable[tuple[str, str | None]], total: int, title: str) -> Counter[str]:
    """How many subjects were kept, stored, or have a defect, which is printed as it is found."""
    counts = Counter({KEPT: 0, STORED: 0, "with defects": 0})
    for name, outcome in tqdm(outcomes, total=total, unit="subject", desc=title):
        if outcome in (None, KEPT, STORED):
            counts[outcome or KEPT] += 1
        else:
            counts["with defects"] += 1
            tqdm.write(f"{name}: {str(outcome).removeprefix(f'subject {name}: ')}")
    return counts


def main() -> None:
    arguments = parse_arguments()
    if arguments.processes < 1:
        raise UserError(f"--processes must be at least 1, not {arguments.processes}")
    data = data_config(arguments)
    path = arguments.output or data.store
    if path is None:
        raise UserError("-o or data.store must name the folder of the store")
    if arguments.verify:
        store = VolumeStore(path)
        counts = count(verify(store), len(store.names), "verifying")
    else:
        splits = [csv for csv in (data.train, data.valid, data.test) if csv.exists()]
        by_split = splits and not arguments.folders
        masks = subjects_of_splits(data, splits) if by_split else subjects_of_folders(data)
        outcomes = prepare(data, masks, path, arguments.processes)
        counts = count(outcomes, len(masks), "preparing")
    print(f"{path}: " + ", ".join(f"{number} {outcome}" for outcome, number in counts.items()))
    if counts["with defects"]:
        sys.exit(1)


if __name__ == "__main__":
    run_script(main)
