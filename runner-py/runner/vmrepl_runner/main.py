"""The start of the runner: takes its socket, hides it, rehearses, serves."""

import fcntl
import io
import os
import site
import socket
import sys

from vmrepl_runner.frames import Channel
from vmrepl_runner.serve import Server

FD_VARIABLE = "VMREPL_RUNNER_FD"
_FD_FROM = 700


def main() -> None:
    """Serves the agent behind the inherited descriptor until it goes."""
    number = int(os.environ.pop(FD_VARIABLE))
    # Out of the way of user code that closes or scans low descriptors; children never see it.
    high = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _FD_FROM)
    os.close(number)
    channel = Channel(socket.socket(fileno=high))
    sys.stdout = _text(1)
    sys.stderr = _text(2)
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
    site.main() if "exit" not in vars(sys.modules["builtins"]) else None
    # User code finds its own modules first, and none of ours by accident.
    sys.path[:] = [p for p in sys.path if p != os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.path.insert(0, "")
    sys.argv = [""]
    server = Server(channel)
    server.rehearse(
        [
            {"code": "1 + 1"},
            {"code": "a = [n for n in range(3)]\na", "stream": True, "id": "r", "timeout_ms": 10_000},
            {"code": "def f():\n    return 1 / 0\nf()", "stream": True},
            {"code": "x =", "stream": True},
            {"code": "print(end='')\nimport sys\nsys.exit(3)", "stream": True},
        ]
    )
    server.serve()


def _text(fd: int) -> io.TextIOWrapper:
    raw = io.FileIO(fd, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)
