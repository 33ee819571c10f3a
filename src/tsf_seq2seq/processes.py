"""The processes of one machine: subjects shared out among them, and the memory that they have."""

import os
import signal
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from tsf_seq2seq.errors import UserError

Result = TypeVar("Result")
CTRL_C = {signal.SIGINT}


def map_in_processes(
    processes: int, work: Callable[..., Result], *jobs: Iterable[Any]
) -> Generator[Result, None, None]:
    """What `map(work, *jobs)` gives, in that order, on so many processes at once.

    Whoever stops iterating, or an error of `work`, gives up the jobs that haven't begun. Raises
    UserError where the system ends one of the processes.
    """
    if processes == 1:
        yield from map(work, *jobs)
        return
    rows = list(zip(*jobs, strict=False))
    workers = max(1, min(processes, len(rows)))
    with ProcessPoolExecutor(workers, get_context("spawn"), _end_quietly) as pool:
        # The processes start with Ctrl-C held back, until they know how to end without a word.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, CTRL_C)
        try:
            results = pool.map(work, *zip(*rows, strict=True))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            yield from results
        except BrokenProcessPool:
            raise UserError(
                f"one of {workers} processes was ended by the system, as it does where memory runs "
                "out: --processes takes fewer"
            ) from None


def check_memory(what: str, n_bytes: float) -> None:
    """UserError where something needs more memory than the machine has, before it is taken."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > physical:
        raise UserError(
            f"{what} would take {n_bytes / 1e9:,.0f} GB of memory, but this machine has "
            f"{physical / 1e9:,.0f} GB"
        )


def _end_quietly() -> None:
    """Let Ctrl-C, which reaches every process, end this one: the first says all there is to say."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, CTRL_C)
