"""The start of the runner: takes its socket, hides it, rehearses, serves."""

import faulthandler
import gc
import os
import platform
import signal
import sys
from collections.abc import Callable
from threading import Thread

from vmrepl_runner.backend import Backend
from vmrepl_runner.backend_python import PythonBackend
from vmrepl_runner.frames import READY, Link, frame
from vmrepl_runner.interrupts import Interrupts
from vmrepl_runner.reader import Reader
from vmrepl_runner.rehearse import rehearse
from vmrepl_runner.reseed import Reseeder
from vmrepl_runner.runner import Runner
from vmrepl_runner.stage import Stage
from vmrepl_runner.streams import Streams
from vmrepl_runner.text import encode

FD_VARIABLE = "VMREPL_RUNNER_FD"
LANGUAGE_VARIABLE = "VMREPL_LANGUAGE"
PYTHON = "python"


def main() -> None:
    """Serves the agent behind the inherited descriptor until it ends the conversation."""
    link = Link.inherit(int(os.environ.pop(FD_VARIABLE)))
    faulthandler.enable()
    _clear_paths()
    streams = Streams()
    reseeder = Reseeder()
    reseeder.install()
    rehearse(streams)
    runner = Runner(link, Interrupts(), streams, _backend_of(os.environ.pop(LANGUAGE_VARIABLE, PYTHON)))
    runner.install()
    reader = Reader(link, runner.desk, runner.backend, reseeder)
    reseeder.forget()
    gc.collect()
    gc.freeze()
    ready = encode({"python": platform.python_version(), "taken": True})
    link.send(frame(READY, 0, ready.encode()))
    thread = Thread(target=_read, args=(reader,), name="vmrepl-reader", daemon=True)
    thread.start()
    runner.work()


def _backend_of(language: str) -> Callable[[Stage], Backend]:
    if language == PYTHON:
        return PythonBackend
    # Only where it is needed: it takes memory.
    from vmrepl_runner.backend_kernel import KernelBackend

    return lambda stage: KernelBackend(language, stage.interrupts)


def _read(reader: Reader) -> None:
    # Signals are for the main thread, where they can interrupt something.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGALRM, signal.SIGTERM})
    try:
        reader.read()
    finally:
        if sys.exc_info()[0] is not None:
            # Deaf, we would leave every client waiting; the agent starts another runner.
            sys.excepthook(*sys.exc_info())
            os._exit(70)


def _clear_paths() -> None:
    """User code finds its own modules first, and none of ours by accident."""
    ours = __file__.rpartition("/")[0].rpartition("/")[0]
    sys.path[:] = ["", *(folder for folder in sys.path if folder not in (ours, ""))]
    sys.argv = [""]
