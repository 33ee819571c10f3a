"""Subjects shared out among the processes of one machine."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

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
