"""The rehearsal at start: each way through the runner is walked before the first real cell.

A snapshot taken afterwards keeps what it fills: specialised bytecode, caches, touched memory. It is played
by an understudy that speaks to the null device, so that no trace of it is left.
"""

import os
import sys

from vmrepl_runner.backend_python import PythonBackend
from vmrepl_runner.frames import Link
from vmrepl_runner.interrupts import Interrupts
from vmrepl_runner.reader import Reader
from vmrepl_runner.reseed import Reseeder
from vmrepl_runner.runner import Runner
from vmrepl_runner.streams import Streams

_REQUESTS = (
    b'{"code": "1 + 1"}',
    b'{"code": "x = 1"}',
    b'{"code": "x = 1\\nprint(end=\'\')", "show_tables": true}',
    b'{"id": "%d", "stream": true, "code": "def f(a):\\n    for b in a:\\n        c = b\\n    return c\\nf([2])"}',
    b'{"id": "%da", "stream": true, "code": "import sys\\nwith open(\'/dev/null\') as null: null.read()"}',
    b'{"id": "%db", "stream": true, "code": "class A:\\n    def m(self):\\n        raise ValueError(1)\\nA().m()"}',
    b'{"id": "%dc", "timeout_ms": 60000, "code": "1 / 0"}',
    b'{"code": "1 / 0"}',
    b'{"code": "x ="}',
    b'{"id": "%dd", "code": "import asyncio\\nawait asyncio.sleep(0)", "store": false}',
    b'{"op": "complete", "code": "x.re"}',
    b'{"op": "complete", "code": "pri"}',
    b'{"op": "inspect", "code": "print"}',
    b'{"op": "is_complete", "code": "if x:"}',
    b'{"op": "variables", "id": "v"}',
    b'{"op": "ping"}',
)
_ROUNDS = 10
"""Bytecode is specialised after eight."""


def rehearse(streams: Streams) -> None:
    """Plays all requests and clears the stage."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    link = Link(null)
    runner = Runner(link, Interrupts(), streams, PythonBackend)
    reader = Reader(link, runner.desk, runner.backend, Reseeder())
    runner.install()
    path, arguments = sys.path[:], sys.argv
    for number in range(_ROUNDS):
        for request in _REQUESTS:
            reader.request(1, request.replace(b"%d", b"%d" % number))
            runner.catch_up()
            runner.desk.taken()
    runner.dismiss()
    sys.path[:], sys.argv = path, arguments
    for name in ("last_type", "last_value", "last_traceback"):
        vars(sys).pop(name, None)
    os.close(null)
