"""Takes requests from the agent: questions are answered at once, cells wait their turn.

The reader is a thread; cells run on the main thread, where signals arrive.
"""

import contextlib
import json
import os
import queue
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from vmrepl_runner import frames, inspecting
from vmrepl_runner.backend_python import Outcome, PythonBackend
from vmrepl_runner.frames import Channel, to_json
from vmrepl_runner.interrupts import Interrupts
from vmrepl_runner.reseed import Reseeder
from vmrepl_runner.stdin import Stdin

PLAIN = frozenset(("code", "show_tables", "show_table_meta"))
QUEUE_MAX = 256
ANSWERS_KEPT = 64
ANSWER_BYTES_KEPT = 1 << 20

Request = dict[str, Any]


class Job:
    """One cell on its way: what was asked and by which connections."""

    __slots__ = ("cell", "connections", "displays", "extended", "id", "request", "stream")

    def __init__(self, connection: int, request: Request, serial: int) -> None:
        self.connections = [connection]
        self.request = request
        self.id: str | None = request.get("id")
        self.cell = self.id if self.id is not None else f"cell-{serial}"
        self.stream = bool(request.get("stream"))
        self.extended = not PLAIN.issuperset(request)
        self.displays: list[dict[str, Any]] = []


class Server:
    """One runner: a channel, a backend, a queue of cells."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._interrupts = Interrupts()
        self._backend = PythonBackend(self._interrupts)
        self._reseeder = Reseeder()
        self._stdin = Stdin(self._ask)
        self._queue: queue.Queue[Job | None] = queue.Queue(QUEUE_MAX)
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._answers: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()
        self._running: Job | None = None
        self._serial = 0
        self._pid = os.getpid()
        self._streams = (sys.stdout, sys.stderr)
        self._handlers: dict[str, Callable[[Request], dict[str, Any] | None]] = {
            "complete": self._complete,
            "inspect": self._inspect,
            "is_complete": lambda request: inspecting.is_complete(str(request.get("code", ""))),
            "variables": lambda _: {"variables": inspecting.variables(self._backend.namespace)},
            "ping": lambda _: {"pong": True},
            "interrupt": self._interrupt,
            "stdin": self._feed,
        }
        self._stdin.install()
        sys.modules["builtins"].__dict__["display"] = self._display
        os.register_at_fork(after_in_child=self._channel.close)

    def serve(self) -> None:
        """Runs cells until the agent ends the conversation."""
        reader = threading.Thread(target=self._read, name="vmrepl-reader", daemon=True)
        self._reseeder.watch()
        self._channel.send(frames.READY, 0, to_json({"python": sys.version.split()[0]}))
        reader.start()
        while True:
            job = self._queue.get()
            if job is None:
                return
            self._run(job)

    # The reader's side

    def _read(self) -> None:
        handlers = {frames.REQUEST: self._request, frames.CLOSED: self._closed, frames.RESUMED: self._resumed}
        while True:
            try:
                frame = self._channel.receive()
            except OSError:
                frame = None
            if frame is None or frame[0] == frames.EXIT:
                os._exit(0)
            handler = handlers.get(frame[0])
            if handler is not None:
                handler(frame[1], frame[2])

    def _request(self, connection: int, line: bytes) -> None:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            return self._refuse(connection, None, f"the request is not JSON: {error}")
        if not isinstance(request, dict):
            return self._refuse(connection, None, "the request is not a JSON object")
        op, id_ = request.get("op", "run"), request.get("id")
        if id_ is not None and not isinstance(id_, str):
            return self._refuse(connection, None, "`id` is not a string")
        if op in ("run", "warm"):
            return self._enqueue(connection, request)
        handler = self._handlers.get(op) if isinstance(op, str) else None
        if handler is None:
            return self._refuse(connection, id_, f"`op` is {op!r}, which is not known")
        if op != "stdin":
            self._channel.send(frames.RECEIVED, connection, to_json({"id": id_, "op": op}))
        try:
            answer = handler(request)
        except Exception as error:
            return self._refuse(connection, id_, f"`{op}` failed: {type(error).__name__}: {error}")
        if answer is not None:
            tail = {} if id_ is None else {"id": id_}
            self._channel.line(connection, {"exit_code": 0, **answer, **tail})
        return None

    def _refuse(self, connection: int, id_: str | None, message: str) -> None:
        answer = {"exit_code": 2, "stdout": "", "stderr": "", "result_repr": None, "error": message, "tables": []}
        if id_ is not None:
            answer.update(id=id_, status="error")
        self._channel.line(connection, answer)

    def _enqueue(self, connection: int, request: Request) -> None:
        problem = _problem(request)
        if problem is not None:
            return self._refuse(connection, request.get("id"), problem)
        with self._lock:
            self._serial += 1
            job = Job(connection, request, self._serial)
            if job.id is not None:
                if job.id in self._jobs:
                    self._jobs[job.id].connections.append(connection)
                    return None
                if job.id in self._answers:
                    self._channel.done(connection, *self._answers[job.id])
                    return None
                self._jobs[job.id] = job
        self._channel.send(frames.RECEIVED, connection, to_json({"id": job.id, "op": "run"}))
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            with self._lock:
                self._jobs.pop(job.id or "", None)
            return self._refuse(connection, job.id, f"{QUEUE_MAX} cells wait already")
        return None

    def _closed(self, connection: int, _payload: bytes) -> None:
        job = self._running
        if job is not None and job.connections == [connection]:
            self._stdin.feed(None)

    def _resumed(self, _connection: int, payload: bytes) -> None:
        message = json.loads(payload)
        self._reseeder.fresh(message.get("rng", "keep"))
        self._channel.send(frames.RESUMED_ACK, 0, to_json({"generation": message.get("generation")}))

    def _complete(self, request: Request) -> dict[str, Any]:
        code = str(request.get("code", ""))
        cursor = request.get("cursor")
        at = cursor if isinstance(cursor, int) else len(code)
        return inspecting.complete(code, max(0, min(at, len(code))), self._backend.namespace)

    def _inspect(self, request: Request) -> dict[str, Any]:
        code = str(request.get("code", ""))
        cursor = request.get("cursor")
        at = cursor if isinstance(cursor, int) else len(code)
        detail = 1 if request.get("detail") == 1 else 0
        return inspecting.describe(code, max(0, min(at, len(code))), detail, self._backend.namespace)

    def _interrupt(self, request: Request) -> dict[str, Any]:
        job = self._running
        named = request.get("cell")
        acted = job is not None and named == job.cell and self._interrupts.interrupt()
        return {"acted": acted}

    def _feed(self, request: Request) -> None:
        data = request.get("data")
        self._stdin.feed(data if isinstance(data, str) and not request.get("eof") else None)

    # The main thread's side

    def _run(self, job: Job) -> None:
        if job.request.get("op") == "warm":
            return self._warm(job)
        began = time.perf_counter()
        self._prepare(job)
        started = {"cell": job.cell, "id": job.id, "stream": job.stream, "extended": job.extended}
        limits = job.request.get("limits") or {}
        if "output_bytes" in limits:
            started["output_bytes"] = limits["output_bytes"]
        self._running = job
        self._channel.send(frames.STARTED, job.connections[0], to_json(started))
        emit = (lambda kind, fields: self._event(job, kind, fields)) if job.extended else None
        outcome = self._backend.run(job.request, emit)
        ran_ms = (time.perf_counter() - began) * 1000
        if os.getpid() != self._pid:
            # A child that the cell forked has fallen out of it: it is not the runner.
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(outcome.exit_code)
        if job.extended:
            self._report(job, outcome)
        self._settle()
        self._running = None
        self._finish(job, outcome, ran_ms, began)
        return None

    def _prepare(self, job: Job) -> None:
        request = job.request
        self._stdin.begin(bool(request.get("allow_stdin")))
        sys.stdin = self._stdin
        space = self._backend.namespace
        if request.get("filename"):
            space["__file__"] = request["filename"]
        if request.get("argv") is not None:
            sys.argv = list(request["argv"])
        for folder in reversed(request.get("path") or []):
            if folder not in sys.path:
                sys.path.insert(0, folder)

    def _settle(self) -> None:
        """Takes back what user code may have changed, and flushes what it wrote."""
        for stream in {id(s): s for s in (sys.stdout, sys.stderr, *self._streams)}.values():
            with contextlib.suppress(Exception):
                stream.flush()
        sys.stdout, sys.stderr = _reopened(self._streams[0], 1), _reopened(self._streams[1], 2)
        self._streams = (sys.stdout, sys.stderr)
        self._interrupts.restore_handler()
        self._reseeder.watch()

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()

    def _event(self, job: Job, kind: str, fields: dict[str, Any]) -> None:
        if job.stream:
            self._flush()
            tail = {} if job.id is None else {"id": job.id}
            self._channel.line(job.connections[0], {"type": kind, **tail, **fields})

    def _display(self, *values: Any) -> None:
        """Shows values in all their forms, as a cell's last expression would."""
        from vmrepl_runner.results import bundle_of, text_of

        job = self._running
        for value in values:
            if job is None or not job.extended:
                print(text_of(value))
                continue
            bundle = bundle_of(value, text_of(value))
            job.displays.append(bundle)
            self._event(job, "display", bundle)

    def _report(self, job: Job, outcome: Outcome) -> None:
        """The events of a cell's end."""
        try:
            for bundle in self._backend.figures():
                job.displays.append(bundle)
                self._event(job, "display", bundle)
        except Exception as error:
            print(f"[vmrepl: a figure cannot be drawn: {type(error).__name__}: {error}]", file=sys.stderr)
        if outcome.error is not None:
            name, value, text = outcome.error
            self._event(job, "error", {"name": name, "value": value, "traceback": text})
        elif outcome.result is not None:
            self._event(job, "result", outcome.result)
        for table in outcome.tables:
            self._event(job, "table", {"table": table})

    def _ask(self, prompt: str, password: bool) -> None:
        job = self._running
        if job is None:
            return
        self._flush()
        tail = {} if job.id is None else {"id": job.id}
        fields = {"type": "input_request", **tail, "prompt": prompt, "password": password}
        self._channel.line(job.connections[0], fields)

    def _finish(self, job: Job, outcome: Outcome, ran_ms: float, began: float) -> None:
        head = '{"type": "done", ' if job.stream else "{"
        prefix = f'{head}"exit_code": {outcome.exit_code}, '.encode()
        fields: dict[str, Any] = {
            "result_repr": outcome.result_repr,
            "error": None if outcome.error is None else outcome.error[2],
            "tables": outcome.tables,
        }
        suffix = b""
        if job.extended:
            suffix = b'"truncated": null, '
            if job.id is not None:
                fields["id"] = job.id
            names = outcome.names
            bound = [] if names is None else list(names.bound)
            deleted = [] if names is None else list(names.deleted)
            fields.update(status=outcome.status, names={"bound": bound, "deleted": deleted})
            fields.update(displays=[] if job.stream else job.displays)
            fields.update(result=None if job.stream else outcome.result)
            total_ms = (time.perf_counter() - began) * 1000
            fields["timing"] = {"run_ms": round(ran_ms, 3), "total_ms": round(total_ms, 3)}
            fields["execution_count"] = self._backend.count
            if outcome.error is not None:
                fields.update(error_name=outcome.error[0], error_value=outcome.error[1])
        suffix += to_json(fields)[1:]
        with self._lock:
            if job.id is not None:
                self._jobs.pop(job.id, None)
                if len(suffix) <= ANSWER_BYTES_KEPT:
                    self._answers[job.id] = (prefix, suffix)
                    while len(self._answers) > ANSWERS_KEPT:
                        self._answers.popitem(last=False)
            connections = list(job.connections)
        for connection in connections:
            self._channel.done(connection, prefix, suffix)

    def _warm(self, job: Job) -> None:
        started = {"cell": job.cell, "id": job.id, "stream": False, "extended": True}
        self._channel.send(frames.STARTED, job.connections[0], to_json(started))
        self._running = job
        error = self._backend.warm(job.request["code"], bool(job.request.get("freeze")))
        self._settle()
        self._reseeder.forget()
        self._running = None
        outcome = Outcome()
        if error is not None:
            outcome.exit_code, outcome.status, outcome.error = 1, "error", error
        self._finish(job, outcome, 0.0, time.perf_counter())
        with self._lock:
            self._answers.clear()

    def rehearse(self, cells: list[Request]) -> None:
        """Runs cells that leave no trace, so that the first real one finds its way trodden."""
        for cell in cells:
            self._backend.run(cell, (lambda _k, _f: None) if not PLAIN.issuperset(cell) else None)
        self._backend.forget_rehearsal()


def _reopened(stream: Any, fd: int) -> Any:
    """The stream, or a new one when user code has closed it."""
    if not stream.closed:
        return stream
    return os.fdopen(os.dup(fd) if _is_open(fd) else os.open(os.devnull, os.O_WRONLY), "w", buffering=1)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _problem(request: Request) -> str | None:
    """What is wrong with a request to run a cell."""
    if "code" not in request:
        return "`code` is missing"
    if not isinstance(request["code"], str):
        return "`code` is not a string"
    timeout = request.get("timeout_ms")
    if timeout is not None and (not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or timeout < 0):
        return "`timeout_ms` is not a number of milliseconds"
    for name in ("argv", "path"):
        value = request.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            return f"`{name}` is not a list of strings"
    if request.get("filename") is not None and not isinstance(request["filename"], str):
        return "`filename` is not a string"
    if request.get("limits") is not None and not isinstance(request["limits"], dict):
        return "`limits` is not an object"
    return None
