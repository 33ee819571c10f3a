"""The processes of one machine: subjects shared out among them, and the memory that they have."""

import os
import signal
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import Any, TypeVar

from tsf_seq2seq.errors import UserError

Result = TypeVar("Result")


def map_in_processes(
    processes: int, work: Callable[..., Result], *jobs: Iterable[Any]
) -> Generator[Result, None, None]:
    """What `map(work, *jobs)` gives, in that order, on so many processes at once.

    Whoever stops iterating, an error of `work` or Ctrl-C ends the processes. Raises UserError where
    the system ends one of them.
    """
    if processes == 1:
        yield from map(work, *jobs)
        return
    rows = list(zip(*jobs, strict=False))
    workers = max(1, min(processes, len(rows)))
    others = set(active_children())
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        try:
            # Started with Ctrl-C blocked, the processes leave it to this one, which says it once.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                left = [pool.submit(work, *row) for row in rows][::-1]
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            while left:
                yield left.pop().result()
        except BrokenProcessPool:
            raise UserError(
                f"one of {workers} processes was ended by the system, as it does where memory runs "
                "out: --processes takes fewer"
            ) from None
        except BaseException:
            for process in set(active_children()) - others:
                process.terminate()
            raise


def check_memory(what: str, n_bytes: float) -> None:
    """UserError where something needs more memory than the machine has, before it is taken."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > physical:
        raise UserError(
            f"{what} would take {n_bytes / 1e9:,.0f} GB of memory, but this machine has "
            f"{physical / 1e9:,.0f} GB"
        )
