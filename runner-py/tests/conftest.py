"""A speaker for the runner's frames: the agent's side of the private socket, and pipes for its output."""

import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

RUNNER = Path(__file__).parent.parent / "runner"
HEADER = struct.Struct(">BII")
DEADLINE_S = 30
REQUEST, CLOSED, RESUMED, EXIT, TAKEN = 1, 2, 3, 4, 5
READY, LINE, STARTED, DONE, RESUMED_ACK, RECEIVED = 16, 17, 18, 19, 20, 21


class Speaker:
    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(DEADLINE_S)
        self.out, out = os.pipe()
        self.err, err = os.pipe()
        environment = {**os.environ, "VMREPL_RUNNER_FD": str(theirs.fileno()), "MPLBACKEND": "agg"}
        command = [sys.executable, "-I", "-B", "-X", "utf8", str(RUNNER)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, pass_fds=[theirs.fileno()], env=environment
        )
        theirs.close()
        os.close(out)
        os.close(err)
        assert self.frame()[0] == READY

    def frame(self) -> tuple[int, int, bytes]:
        kind, connection, length = HEADER.unpack(self._exactly(HEADER.size))
        return kind, connection, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError("the runner is gone")
            data += part
        return data

    def send(self, kind: int, payload: bytes, connection: int = 1) -> None:
        self.socket.sendall(HEADER.pack(kind, connection, len(payload)) + payload)

    def drain(self, fd: int) -> str:
        data = b""
        while select.select([fd], [], [], 0)[0]:
            part = os.read(fd, 1 << 16)
            if not part:
                break
            data += part
        return data.decode("utf-8", "backslashreplace")

    def ask(self, **request: Any) -> dict[str, Any]:
        self.send(REQUEST, json.dumps(request).encode())
        return self.answer()

    def answer(self, events: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """The answer as the agent would send it on; events on the way go to `events`."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            kind, _, payload = self.frame()
            if kind == LINE:
                value = json.loads(payload)
                if "type" not in value:
                    return dict(value)
                if events is not None:
                    events.append(value)
                    if value["type"] == "input_request":
                        return dict(value)
            elif kind == DONE:
                length = struct.unpack(">I", payload[:4])[0]
                prefix, suffix = payload[4 : 4 + length].decode(), payload[4 + length :].decode()
                outputs = json.dumps({"stdout": self.drain(self.out), "stderr": self.drain(self.err)})[1:-1]
                self.send(TAKEN, b"", 0)
                return dict(json.loads(f"{prefix}{outputs}, {suffix}"))
        raise TimeoutError

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.close()
        os.close(self.out)
        os.close(self.err)


@pytest.fixture
def runner() -> Iterator[Speaker]:
    speaker = Speaker()
    yield speaker
    speaker.close()
