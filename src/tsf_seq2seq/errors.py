"""Errors that are the user's to mend, and how scripts report them."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in the user's input: one sentence that names file, rule and value."""


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; a `UserError` becomes one line on standard error and exit code 2."""
    try:
        main()
    except UserError as error:
        sys.exit(_report(error))


def _report(error: UserError) -> int:
    print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
    return 2
