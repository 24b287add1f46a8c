"""Standard output and error: descriptors 1 and 2, given back after user code has played with them."""

import contextlib
import fcntl
import os
import sys
from typing import TextIO

_KEPT_FROM = 880


class Streams:
    """The two streams as the process got them."""

    def __init__(self) -> None:
        self._out, self._err = _tuned(sys.stdout), _tuned(sys.stderr)
        self._kept = {fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _KEPT_FROM) for fd in (1, 2)}
        self._known = {fd: _identity(fd) for fd in (1, 2)}
        os.register_at_fork(before=self.flush)

    def flush(self) -> None:
        """Writes out what is held back, also by streams that user code has put in their place."""
        out, err = sys.stdout, sys.stderr
        try:
            self._out.flush()
            self._err.flush()
            if out is not self._out and out is not None:
                out.flush()
            if err is not self._err and err is not None:
                err.flush()
        except (OSError, ValueError, AttributeError):
            # Closed, or user code's own: nothing that can be written is left.
            return

    def restore(self) -> None:
        """Gives back streams and descriptors that user code has closed or replaced."""
        for fd, known in self._known.items():
            if _identity(fd) != known:
                os.dup2(self._kept[fd], fd)
        if sys.stdout is not self._out or self._out.closed:
            sys.stdout = self._out = _usable(self._out, 1, "surrogateescape")
        if sys.stderr is not self._err or self._err.closed:
            sys.stderr = self._err = _usable(self._err, 2, "backslashreplace")


def _tuned(stream: TextIO) -> TextIO:
    with contextlib.suppress(AttributeError):
        stream.reconfigure(line_buffering=True)  # type: ignore[attr-defined]
    return stream


def _usable(stream: TextIO, fd: int, errors: str) -> TextIO:
    if not stream.closed:
        return stream
    return os.fdopen(fd, "w", 1, encoding="utf-8", errors=errors, closefd=False)


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino
