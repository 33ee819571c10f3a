"""The processes of one machine: subjects shared out among them, and the memory that they have."""

import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

from tsf_seq2seq.errors import UserError

Result = TypeVar("Result")


def map_in_processes(
    processes: int, work: Callable[..., Result], *jobs: Iterable[Any]
) -> Generator[Result, None, None]:
    """What `map(work, *jobs)` gives, in that order, on so many processes at once.

    Whoever stops iterating, or an error of `work`, gives up the jobs that haven't begun.
    """
    if processes == 1:
        yield from map(work, *jobs)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, *jobs)


def check_memory(what: str, n_bytes: float) -> None:
    """UserError where something needs more memory than the machine has, before it is taken."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > physical:
        raise UserError(
            f"{what} would take {n_bytes / 1e9:,.0f} GB of memory, but this machine has "
            f"{physical / 1e9:,.0f} GB"
        )
