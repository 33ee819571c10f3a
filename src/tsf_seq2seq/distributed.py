"""One run on several processes, as torchrun starts them: who does what, and how they agree."""

import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.folder import claimed

Item = TypeVar("Item")
GRACE_SECONDS = 20  # after a signal; torchrun kills after 30


@dataclass(frozen=True)
class Processes:
    """This process among the `size` processes of a run.

    What a process works on follows from its `rank`; only the main one, rank 0, writes and prints.
    """

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part: every `size`-th item from number `rank` on."""
        return items[self.rank :: self.size]

    def gather(self, item: Item) -> list[Item]:
        """Everybody's item, by rank; called by all processes."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        with loss_of_processes_reported():
            dist.all_gather_object(items, item)
        return items

    def gather_shares(self, items: Sequence[Item]) -> list[Item]:
        """All items in the order they had before `share`, from what each process made of its own.

        Every process must give one item for each that `share` gave it.
        """
        shares = self.gather(list(items))
        return [shares[i % self.size][i // self.size] for i in range(sum(map(len, shares)))]

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, one by one; called by all processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        with loss_of_processes_reported():
            dist.all_reduce(total)  # on the CPU: doesn't wait for the GPU
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; called by all processes."""
        return self.sum([float(flag)]) != [0.0]

    def claim(self, folder: Path) -> AbstractContextManager[None]:
        """The folder for the whole run: the main process claims it (`claimed`)."""
        return claimed(folder) if self.main else nullcontext()


ALONE = Processes()


def local_rank() -> int | None:
    """This process's number on its machine where torchrun started it, else None."""
    return int(os.environ["LOCAL_RANK"]) if "LOCAL_RANK" in os.environ else None


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """The processes that torchrun started, within it connected; else this one alone.

    Raises UserError where another one ends before its time.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with loss_of_processes_reported():
        dist.init_process_group(backend)
        try:
            with _ended_after_signals():
                yield Processes(dist.get_rank(), dist.get_world_size())
        finally:
            dist.destroy_process_group()


@contextmanager
def loss_of_processes_reported() -> Iterator[None]:
    """Within it, a broken connection to another process is a UserError."""
    try:
        yield
    except RuntimeError as error:
        # gloo has no error type of its own; its messages start with their place in its sources.
        if isinstance(error, dist.DistError) or re.match(r"\[\S*\bgloo/", str(error)):
            raise UserError(
                "another process of this run has ended or can't be reached any more; its own "
                "message, if it left one, says why"
            ) from error
        raise


@contextmanager
def _ended_after_signals() -> Iterator[None]:
    """Within it, a SIGINT or SIGTERM ends the process in time even if it waits for a dead one.

    Python's own signal handlers don't run while the main thread waits within a collective.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    done = threading.Event()

    def watch() -> None:
        while received := os.read(reading, 1):
            name = signal.Signals(received[0]).name
            if name in ("SIGINT", "SIGTERM") and not done.wait(GRACE_SECONDS):
                print(
                    f"error: {name} came and no step ended within {GRACE_SECONDS} s; the last "
                    "checkpoint stays as it is",
                    flush=True,
                )
                os._exit(128 + received[0])
        os.close(reading)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        os.close(writing)
        watching.join()
