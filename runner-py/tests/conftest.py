"""A speaker for the runner's frames: the agent's side of the private socket, and pipes for its output."""

import ast
import json
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

RUNNER = Path(__file__).parent.parent / "runner"
HEADER = struct.Struct(">BII")
DEADLINE_S = 30
REQUEST, CLOSED, RESUMED, EXIT, TAKEN, SIGNALLED, EXCEEDED = 1, 2, 3, 4, 5, 6, 7
READY, LINE, STARTED, DONE, RESUMED_ACK, RECEIVED = 16, 17, 18, 19, 20, 21

Answer = dict[str, Any]


class Speaker:
    def __init__(self, language: str = "python") -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(DEADLINE_S)
        self.out, out = os.pipe()
        self.err, err = os.pipe()
        self.fd = theirs.fileno()
        environment = {**os.environ, "VMREPL_RUNNER_FD": str(self.fd), "MPLBACKEND": "agg"}
        environment["VMREPL_LANGUAGE"] = language
        command = [sys.executable, "-I", "-B", "-X", "utf8", str(RUNNER)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, pass_fds=[self.fd], env=environment
        )
        theirs.close()
        os.close(out)
        os.close(err)
        self.events: list[Answer] = []
        self.early: list[Answer] = []
        kind, _, payload = self.frame()
        assert kind == READY
        self.ready = json.loads(payload)

    # Frames

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

    def send(self, kind: int, payload: bytes = b"", connection: int = 1) -> None:
        self.socket.sendall(HEADER.pack(kind, connection, len(payload)) + payload)

    def until(self, kind: int) -> dict[str, Any]:
        """The next frame of that kind; what comes before is dropped."""
        while True:
            found, _, payload = self.frame()
            if found == kind:
                return dict(json.loads(payload))

    # Requests

    def request(self, connection: int = 1, **request: Any) -> None:
        self.send(REQUEST, json.dumps(request).encode(), connection)

    def start(self, code: str, id: str, **request: Any) -> None:
        """Starts a cell and returns when it has said that it runs user code."""
        if "[started]" not in code:
            code = f"print('[started]', flush=True)\n{code}"
        self.request(code=code, id=id, **request)
        assert self.until(STARTED)["cell"] == id
        assert self.read(self.out, "[started]\n")

    def ask(self, **request: Any) -> Answer:
        self.request(**request)
        return self.wait(request.get("id"))

    def run(self, code: str) -> Any:
        """The value of a cell that is a literal."""
        answer = self.ask(code=code)
        assert answer["error"] is None, answer["error"]
        return None if answer["result_repr"] is None else ast.literal_eval(answer["result_repr"])

    def wait(self, id: str | None) -> Answer:
        """The answer of that id; others wait for their turn."""
        for at, answer in enumerate(self.early):
            if answer.get("id") == id:
                return self.early.pop(at)
        while (answer := self._next()).get("id") != id:
            self.early.append(answer)
        return answer

    def answer(self) -> Answer:
        return self.early.pop(0) if self.early else self._next()

    def event(self, kind: str) -> Answer:
        """The next event, which must be of that kind."""
        while True:
            found, _, payload = self.frame()
            if found == LINE:
                event = dict(json.loads(payload))
                assert event["type"] == kind
                return event
            assert found != DONE

    def _next(self) -> Answer:
        """The next answer as the agent would send it on; events on the way go to `events`."""
        while True:
            kind, _, payload = self.frame()
            if kind == LINE:
                assert payload.endswith(b"\n")
                value = dict(json.loads(payload, parse_constant=pytest.fail))
                if not payload.startswith(b'{"type"'):
                    return value
                self.events.append(value)
            elif kind == DONE:
                length = struct.unpack(">I", payload[:4])[0]
                prefix, suffix = payload[4 : 4 + length].decode(), payload[4 + length :].decode()
                outputs = json.dumps({"stdout": self.drain(self.out), "stderr": self.drain(self.err)})[1:-1]
                self.send(TAKEN, connection=0)
                return dict(json.loads(f"{prefix}{outputs}, {suffix}", parse_constant=pytest.fail))

    # Output

    def drain(self, fd: int) -> str:
        data = b""
        while select.select([fd], [], [], 0)[0]:
            part = os.read(fd, 1 << 16)
            if not part:
                break
            data += part
        return data.decode("utf-8", "backslashreplace")

    def read(self, fd: int, text: str) -> bool:
        """Reads exactly this text."""
        data = b""
        while len(data) < len(text.encode()):
            assert select.select([fd], [], [], DEADLINE_S)[0]
            data += os.read(fd, len(text.encode()) - len(data))
        return data == text.encode()

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
