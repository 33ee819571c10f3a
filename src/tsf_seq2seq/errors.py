"""Errors that are the user's to mend, and how scripts report them."""

import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in the user's input: one sentence that names file, rule and value."""


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; a `UserError` becomes one line on standard error and exit code 2.

    Of several processes that torchrun started, all but the first say which one they are.
    """
    try:
        main()
    except UserError as error:
        sys.exit(_report(error))


def _report(error: UserError) -> int:
    rank = os.environ.get("RANK", "0")
    process = "" if rank == "0" else f"process {rank}: "
    print(f"error: {process}{' '.join(str(error).splitlines())}", file=sys.stderr, flush=True)
    return 2
