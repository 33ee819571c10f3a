"""Property-based tests and faults of the disk at length: `make fuzz MINUTES=10`.

Two workers, until the time is over: one runs the tests marked `property` with new seeds, the other
lets faults strike every command at random changes. What failed is printed whole; a failing example
also as the line @example(…) that keeps it as a test.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parent
PROPERTIES = ("-m", "property", "--hypothesis-show-statistics")
FAULTS = ("-s", "test_faults.py")
# What the two kinds of rounds print: a test's name, and below it its examples; faults, and where.
TEST = re.compile(r"tests/test_properties_\w+\.py::(\S+):$")
EXAMPLES = re.compile(r"- (\d+) passing\D*(\d+) failing")
STRUCK = re.compile(r"(\d+) faults in ([\w ]+)")
FALSIFYING = re.compile(r"Falsifying example: (\w+)\(\n(.*?)\n(?:E\s+)?\)", re.DOTALL)


@dataclass
class Found:
    """What a worker has seen: cases by test or command, and the output of rounds that failed."""

    rounds: int = 0
    cases: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def work(options: Sequence[str], until: float, seed: int) -> Found:
    """Rounds of pytest, each with a new seed, until the time is over."""
    found, seeds = Found(), random.Random(seed)
    while time.time() < until:
        number = seeds.randrange(2**32)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
        environment = {"HYPOTHESIS_PROFILE": "fuzz", "FAULTS": str(number), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, f"--hypothesis-seed={number}"],
            cwd=TESTS,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        found.rounds += 1
        found.cases += counted(done.stdout)
        if done.returncode:
            found.failures.append(f"seed {number}\n{done.stdout}\n{done.stderr}")
    return found


def counted(output: str) -> Counter[str]:
    """Examples by test, and faults by command, in pytest's output."""
    cases: Counter[str] = Counter()
    test = ""
    for line in output.splitlines():
        if named := TEST.search(line):
            test = named[1]
        elif numbers := EXAMPLES.search(line):
            cases[test] += int(numbers[1]) + int(numbers[2])
        elif struck := STRUCK.search(line):
            cases[struck[2]] += int(struck[1])
    return cases


def pins(output: str) -> list[str]:
    """The failing examples in pytest's output, as lines to stand above their tests."""
    lines = []
    for test, arguments in FALSIFYING.findall(output):
        values = " ".join(re.sub(r"^E?\s+", "", line) for line in arguments.splitlines())
        lines.append(f"{test}: @example({values.rstrip(', ')})")
    return list(dict.fromkeys(lines))


def main() -> None:
    """Fuzz for so many minutes; exit code 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    arguments = parser.parse_args()
    print(f"{arguments.minutes:g} minutes from seed {arguments.seed} on", flush=True)
    until = time.time() + 60 * arguments.minutes
    with ThreadPoolExecutor() as pool:
        kinds = {"examples": PROPERTIES, "faults": FAULTS}
        running = {
            kind: pool.submit(work, options, until, arguments.seed)
            for kind, options in kinds.items()
        }
        results = {kind: future.result() for kind, future in running.items()}
    for kind, found in results.items():
        print(f"\n{found.cases.total()} {kind} in {found.rounds} rounds")
        for name, count in sorted(found.cases.items()):
            print(f"{count:8} {name}")
    failures = [text for found in results.values() for text in found.failures]
    for text in failures:
        print(f"\n--- failed: {text}")
    for line in dict.fromkeys(pin for text in failures for pin in pins(text)):
        print(line)
    print(f"\n{len(failures)} rounds failed")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
