"""Requests as the runner understands them, and what a cell comes to."""

from queue import SimpleQueue
from typing import Any

from vmrepl_runner import limits

EXTENDING = frozenset(
    (
        "op",
        "id",
        "stream",
        "timeout_ms",
        "limits",
        "filename",
        "argv",
        "detail",
        "cursor",
        "path",
        "allow_stdin",
        "store",
        "execution_count",
    )
)
"""Any of these in a request makes its answer an extended one."""

LIMITS = ("output_bytes", "written_bytes", "cpu_ms", "memory_bytes", "processes")

Bundle = dict[str, Any]


class Refusal(Exception):
    """A request that cannot be carried out; the text says why."""


class Task:
    """Something that the main thread does for a client. The class holds the defaults: a plain cell sets few."""

    connection: int
    id: str | None = None
    deadline: float | None = None
    timeout_ms = 0
    received_ns = 0
    preface = b""
    """What is sent before the task starts."""
    begun = False
    over = False
    """Answered; the main thread only tidies up."""
    stop = False
    """Interrupted before it began."""
    expired = False
    """Out of time before it began."""


class Question(Task):
    """A question about the user's names."""

    def __init__(self, connection: int, op: str, request: dict[str, Any]) -> None:
        self.connection = connection
        self.op = op
        self.request = request


class Repeat(Task):
    """A finished cell's answer, once more."""

    def __init__(self, connection: int, prefix: bytes, suffix: bytes) -> None:
        self.connection = connection
        self.prefix = prefix
        self.suffix = suffix


class Run(Task):
    """One cell on its way."""

    cell = ""
    warm = False
    freeze = False
    extended = False
    stream = False
    show_tables = False
    show_table_meta = False
    store = True
    closed = False
    number: int | None = None
    """The one that the client has for it."""
    filename: str | None = None
    argv: list[str] | None = None
    path: list[str] | None = None
    limits: dict[str, int] | None = None
    """Those that the agent watches."""
    lines: "SimpleQueue[str | None] | None" = None
    """Input that has come and was not read yet; None is its end."""
    chars_in = 0
    chars_read = 0
    overrun = False
    """More input came unasked than is kept."""
    tail = b""
    """Events that go out with the answer."""

    def __init__(self, connection: int, code: str) -> None:
        self.connection = connection
        self.code = code
        self.joined: list[int] = []


class Outcome:
    """What a cell came to. The class holds what nearly all cells come to."""

    exit_code = 0
    status = "ok"
    result_repr: str | None = None
    result: Bundle | None = None
    error: str | None = None
    error_name = ""
    error_value = ""
    bound: tuple[str, ...] | list[str] = ()
    deleted: tuple[str, ...] | list[str] = ()
    count = 0
    run_ns = 0

    def __init__(self) -> None:
        self.tables: list[dict[str, Any]] = []
        self.displays: list[Bundle] = []


def read_run(connection: int, request: dict[str, Any]) -> Run:
    """A run out of a request; Refusal names the field that is wrong."""
    code = request.get("code")
    if type(code) is not str:
        raise Refusal("`code` is missing" if code is None else f"`code` must be a string, not {_kind(code)}")
    run = Run(connection, code)
    if len(request) == 1:
        return run
    if request.get("show_tables"):
        run.show_tables = True
    if request.get("show_table_meta"):
        run.show_table_meta = True
    if not EXTENDING.isdisjoint(request):
        run.extended = True
        for name, value in request.items():
            read = _READERS.get(name)
            if read is not None and value is not None:
                setattr(run, *read(name, value))
    return run


def _kind(value: object) -> str:
    return {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}.get(type(value), "a number")


def _text(name: str, value: object) -> tuple[str, str]:
    if not isinstance(value, str):
        raise Refusal(f"`{name}` must be a string, not {_kind(value)}")
    return name, value


def _switch(name: str, value: object) -> tuple[str, bool]:
    if not isinstance(value, bool):
        raise Refusal(f"`{name}` must be true or false, not {_kind(value)}")
    return name, value


def _texts(name: str, value: object) -> tuple[str, list[str]]:
    if type(value) is not list:
        raise Refusal(f"`{name}` must be an array of strings, not {_kind(value)}")
    for item in value:
        if type(item) is not str:
            raise Refusal(f"`{name}` must be an array of strings")
    return name, value


def _time(name: str, value: object) -> tuple[str, int]:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1e15:
        raise Refusal(f"`{name}` must be a number of milliseconds")
    return name, max(1, int(value))


def _number(name: str, value: object) -> tuple[str, int]:
    if type(value) is not int or not 0 < value <= limits.CELL_NUMBER:
        raise Refusal(f"`{name}` must be a whole number from 1 to {limits.CELL_NUMBER}")
    return "number", value


def _input(name: str, value: object) -> tuple[str, "SimpleQueue[str | None] | None"]:
    return "lines", SimpleQueue() if _switch(name, value)[1] else None


def _limits(name: str, value: object) -> tuple[str, dict[str, int]]:
    if not isinstance(value, dict):
        raise Refusal(f"`{name}` must be an object, not {_kind(value)}")
    found = {}
    for limit in LIMITS:
        most = value.get(limit)
        if most is None:
            continue
        if type(most) is not int or not 0 <= most < 1 << 63:
            raise Refusal(f"`limits.{limit}` must be a whole number, 0 or above")
        found[limit] = most
    return name, found


_READERS: dict[str, Any] = {
    "id": _text,
    "filename": _text,
    "stream": _switch,
    "store": _switch,
    "freeze": _switch,
    "allow_stdin": _input,
    "argv": _texts,
    "path": _texts,
    "timeout_ms": _time,
    "execution_count": _number,
    "limits": _limits,
}
