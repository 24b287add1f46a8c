"""The reader thread: frames in, questions that need no user code answered at once, the rest to the desk.

It never runs user code and never waits for the interpreter's main thread: an interrupt gets through.
"""

import os
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from vmrepl_runner import answers, frames, limits
from vmrepl_runner.backend import Backend
from vmrepl_runner.cells import Question, Refusal, read_run
from vmrepl_runner.desk import Desk
from vmrepl_runner.frames import Link, frame
from vmrepl_runner.reseed import Reseeder
from vmrepl_runner.text import decode, encode, quote, to_bytes

_PLAIN = to_bytes('{"id": null, "op": "run"}')
Request = dict[str, Any]


class Reader:
    """One connection to the agent, read to its end."""

    def __init__(self, link: Link, desk: Desk, backend: Backend, reseeder: Reseeder) -> None:
        self._link = link
        self._desk = desk
        self._backend = backend
        self._reseeder = reseeder
        self._frames: dict[int, Callable[[int, bytes], None]] = {
            frames.REQUEST: self.request,
            frames.CLOSED: lambda connection, _: desk.closed(connection),
            frames.RESUMED: self._resumed,
            frames.TAKEN: lambda _connection, _: desk.taken(),
            frames.SIGNALLED: self._signalled,
            frames.EXCEEDED: self._exceeded,
        }
        self._ops: dict[object, Callable[[int, Request, str | None], None]] = {
            "run": self._run,
            "warm": self._run,
            "stdin": self._stdin,
            "interrupt": self._interrupt,
            "ping": self._ping,
            "complete": self._question,
            "inspect": self._question,
            "variables": self._question,
            "is_complete": self._is_complete,
        }

    def read(self) -> None:
        """Handles frames until the agent ends the conversation or goes away."""
        receive, watch, handlers = self._link.receive, self._desk.watch, self._frames
        while True:
            got = receive(watch)
            if got is None:
                # Without an agent there is nobody to tell anything, and a busy cell would never end.
                os._exit(1)
            kind, connection, payload = got
            if kind == frames.EXIT:
                return self._desk.end()
            handler = handlers.get(kind)
            if handler is not None:
                handler(connection, payload)

    def request(self, connection: int, line: bytes) -> None:
        """Takes one request line."""
        id_: str | None = None
        op: object = None
        try:
            if len(line) > limits.REQUEST_BYTES:
                raise Refusal(f"the request has {len(line)} bytes, more than {limits.REQUEST_BYTES}")
            try:
                request = decode(line)
            except (ValueError, RecursionError) as error:
                raise Refusal(f"the request is not JSON: {error}") from None
            if type(request) is not dict:
                raise Refusal("the request is not a JSON object")
            found = request.get("id")
            if found is not None and not isinstance(found, str):
                raise Refusal("`id` must be a string")
            id_, op = found, request.get("op") or "run"
            handler = self._ops.get(op) if isinstance(op, str) else None
            if handler is None:
                raise Refusal(f"`op` is {encode(op)[:80]}, which is not known")
            handler(connection, request, id_)
        except Refusal as refusal:
            received = _received(connection, None, None) if op is None else _received(connection, id_, op)
            self._link.send(received + answers.refusal(connection, id_, str(refusal)))
        except Exception as error:
            # User code can break much that we share with it; a client still gets its answer.
            message = f"the runner failed: {type(error).__name__}: {error}"
            self._link.send(answers.refusal(connection, id_, message))

    def _run(self, connection: int, request: Request, id_: str | None) -> None:
        run = read_run(connection, request)
        if not run.extended:
            return self._desk.run(run, frame(frames.RECEIVED, connection, _PLAIN))
        run.received_ns = perf_counter_ns()
        run.warm = request.get("op") == "warm"
        if run.warm:
            run.store = False
        return self._desk.run(run, _received(connection, id_, request.get("op") or "run"))

    def _stdin(self, _connection: int, request: Request, id_: str | None) -> None:
        run = self._desk.find(id_)
        if run is None or run.lines is None:
            return
        data, ends = request.get("data"), bool(request.get("eof"))
        if isinstance(data, str):
            if not ends and not data.endswith("\n"):
                data += "\n"
            ahead = run.chars_in - run.chars_read
            # A line that answers a question may be as long as a request.
            if ahead and ahead + len(data) > limits.INPUT_CHARS:
                run.overrun = ends = True
            elif data:
                run.chars_in += len(data)
                run.lines.put(data)
        if ends or not isinstance(data, str):
            run.lines.put(None)

    def _interrupt(self, connection: int, request: Request, id_: str | None) -> None:
        cell = request.get("cell")
        if not isinstance(cell, str):
            raise Refusal("`cell` must be the name of the cell to interrupt")
        self._reply(connection, id_, "interrupt", {"acted": self._desk.interrupt(cell)})

    def _ping(self, connection: int, request: Request, id_: str | None) -> None:
        self._reply(connection, id_, "ping", {"pong": True, "busy": self._desk.is_busy()})

    def _is_complete(self, connection: int, request: Request, id_: str | None) -> None:
        question = _question(connection, request, id_)
        self._reply(connection, id_, "is_complete", self._backend.answer(question, live=False))

    def _question(self, connection: int, request: Request, id_: str | None) -> None:
        question = _question(connection, request, id_)
        if not self._desk.ask(question, _received(connection, id_, question.op)):
            # User code is at work: what can be told without running more of it.
            self._reply(connection, id_, question.op, self._backend.answer(question, live=False) | {"busy": True})

    def _reply(self, connection: int, id_: str | None, op: str, fields: dict[str, Any]) -> None:
        self._link.send(_received(connection, id_, op) + answers.reply(connection, id_, fields))

    def _signalled(self, _connection: int, payload: bytes) -> None:
        message = decode(payload)
        self._desk.signalled(message["cell"], message["sent_ns"])

    def _exceeded(self, _connection: int, payload: bytes) -> None:
        message = decode(payload)
        self._desk.exceeded(message["cell"], message["status"], message["message"])

    def _resumed(self, _connection: int, payload: bytes) -> None:
        message = decode(payload)
        self._reseeder.reseed(message.get("rng") == "fresh", self._desk.serial, self._backend.values)
        self._backend.resumed()
        self._link.send(frame(frames.RESUMED_ACK, 0, to_bytes(f'{{"generation": {message["generation"]}}}')))


def _received(connection: int, id_: str | None, op: object) -> bytes:
    named = quote(op) if isinstance(op, str) else "null"
    text = f'{{"id": {"null" if id_ is None else quote(id_)}, "op": {named}}}'
    return frame(frames.RECEIVED, connection, to_bytes(text))


def _question(connection: int, request: Request, id_: str | None) -> Question:
    question = Question(connection, str(request.get("op")), request)
    question.id = id_
    question.timeout_ms = limits.FINGERPRINT_MS if request.get("digest") is True else limits.QUESTION_MS
    code = request.get("code", "")
    if not isinstance(code, str):
        raise Refusal("`code` must be a string")
    cursor = request.get("cursor")
    if cursor is not None and type(cursor) is not int:
        raise Refusal("`cursor` must be a number of characters")
    request["code"] = code
    request["cursor"] = len(code) if cursor is None else max(0, min(cursor, len(code)))
    return question
