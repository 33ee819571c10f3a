"""Opening files of users, whatever else may stand in their place."""

import errno
import os
import stat


def regular(path: str, flags: int) -> int:
    """An `opener` for `open` that refuses, with an OSError, what may never begin or end to be read.

    A FIFO would keep its reader waiting, and a device may have no end.
    """
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder is refused by `open`
        os.close(handle)
        raise OSError(errno.EINVAL, "it is a FIFO, socket or device, not a file", path)
    return handle
