"""Errors that are the user's to mend, and how scripts report them."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

INTERRUPTED = 130  # what shells say of a command that Ctrl-C ended


class UserError(Exception):
    """A mistake in the user's input: one sentence that names file, rule and value."""


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; what goes wrong outside the program is one line on standard error.

    Exit code 2 for a `UserError`, a disk or file system that refuses and memory that is used up,
    130 for Ctrl-C. Names that a terminal can't show, or would obey, are shown escaped. Of several
    processes that torchrun started, all but the first say which one they are.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = _exit_code(main)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # A thread of PyTorch's that asks for an interpreter which is ending aborts the process, so
        # that torchrun takes a run for failed whose results are on disk.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if code:
        sys.exit(code)


def _exit_code(main: Callable[[], None]) -> int:
    """Run `main` and tell of what went wrong; the process's exit code."""
    try:
        main()
    except UserError as error:
        return _report(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return INTERRUPTED
    except BrokenPipeError:  # such as a pipe into head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError as error:
        return _report(f"there is not enough memory: {error}")
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        return _report(f"{place}{error.strerror or error}")
    except SystemExit as error:  # a training that a signal ended
        if not isinstance(error.code, int):
            raise
        return error.code
    return 0


def run_command(name: str, *arguments: object) -> None:
    """Run a command, as module:function of `tsf_seq2seq.cli`, as `run_script` does.

    It is imported within, so that Ctrl-C while PyTorch loads is one line, too.
    """

    def main() -> None:
        module, function = name.split(":")
        getattr(import_module(f"tsf_seq2seq.cli.{module}"), function)(*arguments)

    run_script(main)


def printable(text: str) -> str:
    """The text on one line, without what a terminal would obey: control signs are escaped."""
    return "".join(
        sign if sign.isprintable() or sign == " " else sign.encode("unicode_escape").decode()
        for sign in " ".join(text.splitlines())
    )


def first_of(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _report(text: str) -> int:
    rank = os.environ.get("RANK", "0")
    process = "" if rank == "0" else f"process {rank}: "
    print(f"error: {process}{printable(text)}", file=sys.stderr, flush=True)
    return 2
