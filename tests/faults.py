"""Makes the n-th change of a folder fail, or kills the process there, and tells what is left.

Changes are what Python reports to audit hooks (files opened for writing, renamed, removed, folders
made), and fsync. Each run is a process of its own, forked from one that has imported the library.
"""

import contextlib
import errno
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch

from tsf_seq2seq.cli import evaluate as cli_evaluate
from tsf_seq2seq.errors import run_script
from tsf_seq2seq.files.folder import claimed

# once: one change is refused. full: from there on the disk is full, and takes only removals.
Kind = Literal["once", "full", "kill"]
KINDS: tuple[Kind, ...] = ("once", "full", "kill")
COMMANDS = [
    "convert",
    "data",
    "evaluate",
    "explain",
    "impute",
    "phantom",
    "report",
    "train",
    "trust",
]
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload([f"tsf_seq2seq.cli.{name}" for name in COMMANDS])
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
REMOVALS = ("os.remove", "os.rmdir")


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit code (negative: by that signal), what it said, how many changes."""

    code: int
    err: str
    out: str
    changes: int

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


@dataclass
class Disk:
    """Counts changes below `folder`, and strikes at number `at` (from 0 on)."""

    folder: str
    at: int | None
    kind: Kind
    count: int = 0
    tally: Path | None = None
    struck: bool = field(default=False)

    def watch(self) -> None:
        sys.addaudithook(self._heard)
        fsync = os.fsync

        def counted(handle: Any) -> None:
            self._change("os.fsync", int(handle))
            fsync(handle)

        os.fsync = counted

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes | os.PathLike) and (flags or 0) & WRITING:
                self._change(event, path)
        elif event in CHANGES:
            self._change(event, arguments[0])

    def _change(self, event: str, path: Any) -> None:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        name = os.path.abspath(os.fsdecode(path))
        if not f"{name}/".startswith(f"{self.folder}/") or (self.at is None and self.tally is None):
            return
        number, self.count = self.count, self.count + 1
        if self.tally is not None:
            tally, self.tally = self.tally, None  # its own opening is no change
            with open(tally, "a") as file:
                file.write(f"{event} {name}\n")
            self.tally = tally
        if self.at is None or number < self.at:
            return
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.at if self.kind == "once" else event not in REMOVALS:
            code = errno.ENOSPC if self.kind == "full" else errno.EIO
            raise OSError(code, os.strerror(code), name)


@dataclass(frozen=True)
class Command:
    """A command of `tsf_seq2seq.cli`: `function` as module:name; {here} in arguments is a folder.

    `prepared`: makes what it starts from in the folder {here}; `output`: where below {here} it
    writes; `again`: further arguments of the run that goes on after a fault; `outdated_go`: results
    that aren't true any more are removed before new ones are made; `as_one`: its folder is of one
    run at any time.
    """

    name: str
    function: str
    arguments: Sequence[str]
    prepared: Callable[[Path], object]
    output: str = "out"
    again: Sequence[str] = ()
    outdated_go: bool = False
    as_one: bool = False


def run(
    command: Command, here: Path, at: int | None = None, kind: Kind = "once", again: bool = False
) -> Ended:
    """Run a command in a process of its own, with a fault at change number `at`."""
    said = here.parent / f"{here.name}.said"
    shutil.rmtree(said, ignore_errors=True)
    said.mkdir()
    arguments = [*command.arguments, *(command.again if again else ())]
    arguments = [argument.replace("{here}", str(here)) for argument in arguments]
    disk = Disk(str(here / command.output), at, kind, tally=said / "changes")
    process = CONTEXT.Process(target=_child, args=(command.function, arguments, disk, said))
    process.start()
    process.join(120)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"{command.name} hangs with a fault ({kind}) at change {at}")
    texts = {name: _text(said / name) for name in ("err", "out", "changes")}
    return Ended(process.exitcode, texts["err"], texts["out"], len(texts["changes"].splitlines()))


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder → what it holds, without times.

    But for what shows the subjects that one run took: the examples of an evaluation, TensorBoard.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): _held(path)
        for path in files
        if "tensorboard" not in path.parts and path.name != "examples.png"
    }


def recovered(folder: Path) -> dict[str, str]:
    """What a folder holds once the next run has claimed it."""
    if folder.is_dir():
        with claimed(folder):
            pass
    return contents(folder)


def _held(path: Path) -> str:
    if path.suffix == ".pth":
        return _digest(_described(torch.load(path, weights_only=True)))
    content = path.read_bytes()
    if path.suffix in (".csv", ".json", ".md", ".html"):
        content = re.sub(rb"\d\d\d\d-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?", b"<time>", content)
    if path.name == "index.json":  # of a store: in whatever order its subjects came
        content = json.dumps(json.loads(content), sort_keys=True).encode()
    if path.name == "log.csv":  # its last column is seconds
        content = re.sub(rb",[0-9.]+(\r?\n)", rb"\1", content)
    return _digest(content)


def _described(value: Any) -> str:
    """Nested values as text, but for the seconds that a training took."""
    if isinstance(value, Mapping):
        items = {str(key): _described(own) for key, own in value.items() if key != "seconds"}
        return json.dumps(items)
    if isinstance(value, list | tuple):
        return json.dumps([_described(item) for item in value])
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {list(value.shape)} {_digest(value.contiguous().numpy().tobytes())}"
    return repr(value)


def _digest(content: bytes | str) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _child(function: str, arguments: Sequence[str], disk: Disk, said: Path) -> None:
    torch.set_num_threads(1)
    module, name = function.split(":")
    main = getattr(importlib.import_module(f"tsf_seq2seq.cli.{module}"), name)
    sys.argv = [name, *arguments]
    os.environ["SOURCE_DATE_EPOCH"] = "0"  # figures carry no times
    vars(cli_evaluate)["find_weights"] = lambda *_: None  # LPIPS: seconds, and no file of its own
    with (
        open(said / "err", "w", buffering=1) as err,
        open(said / "out", "w", buffering=1) as out,
        contextlib.redirect_stderr(err),
        contextlib.redirect_stdout(out),
    ):
        disk.watch()
        run_script((lambda: main("description")) if main.__code__.co_argcount else main)
