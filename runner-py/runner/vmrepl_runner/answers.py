"""The lines that go to clients, as bytes.

A cell's answer leaves in two halves: the agent puts the captured output between them.
"""

from time import perf_counter_ns
from typing import Any

from vmrepl_runner import limits
from vmrepl_runner.cells import Outcome, Run
from vmrepl_runner.frames import LINE, frame
from vmrepl_runner.text import encode, quote, to_bytes

_PLAIN_OK = b'{"exit_code": 0, '
_PLAIN_NOTHING = b'"result_repr": null, "error": null, "tables": []}'


def halves(run: Run, outcome: Outcome) -> tuple[bytes, bytes]:
    """The answer before and after its output fields."""
    code = outcome.exit_code
    if not run.extended:
        prefix = _PLAIN_OK if code == 0 else b'{"exit_code": %d, ' % code
        if outcome.result_repr is None and outcome.error is None and not outcome.tables:
            return prefix, _PLAIN_NOTHING
        return prefix, to_bytes(_plain(outcome) + "}")
    prefix = _PLAIN_OK if code == 0 else b'{"exit_code": %d, ' % code
    if run.stream:
        prefix = b'{"type": "done", ' + prefix[1:]
    suffix = to_bytes(_extended(run, outcome))
    if len(suffix) > limits.ANSWER_BYTES:
        size = len(suffix)
        outcome.displays, outcome.result, outcome.tables = [], None, []
        outcome.result_repr = f"[vmrepl: {size} bytes of the cell's answer left out]"
        suffix = to_bytes(_extended(run, outcome))
    return prefix, suffix


def _plain(outcome: Outcome) -> str:
    result = "null" if outcome.result_repr is None else quote(outcome.result_repr)
    error = "null" if outcome.error is None else quote(outcome.error)
    tables = encode(outcome.tables) if outcome.tables else "[]"
    return f'"result_repr": {result}, "error": {error}, "tables": {tables}'


def _extended(run: Run, outcome: Outcome) -> str:
    parts = ['"truncated": null, ', _plain(outcome)]
    if run.id is not None:
        parts.append(f', "id": {quote(run.id)}')
    parts.append(f', "status": "{outcome.status}", "names": ')
    if outcome.bound or outcome.deleted:
        parts.append(encode({"bound": outcome.bound, "deleted": outcome.deleted}))
    else:
        parts.append('{"bound": [], "deleted": []}')
    # A stream has told both as they came.
    shown = not run.stream
    parts.append(f', "displays": {encode(outcome.displays) if shown and outcome.displays else "[]"}')
    parts.append(f', "result": {encode(outcome.result) if shown and outcome.result else "null"}')
    parts.append(
        f', "timing": {{"run_ms": {_ms(outcome.run_ns)}, "total_ms": {_ms(perf_counter_ns() - run.received_ns)}}}'
    )
    parts.append(f', "execution_count": {outcome.count}')
    if outcome.error is not None:
        name, value = quote(outcome.error_name), quote(outcome.error_value)
        parts.append(f', "error_name": {name}, "error_value": {value}')
    parts.append("}")
    return "".join(parts)


def _ms(ns: int) -> str:
    """Milliseconds to the microsecond, as JSON: the way of a float to its text is long."""
    return f"{ns // 1000}e-3"


def event(run: Run, kind: str, fields: dict[str, Any]) -> bytes:
    """The frame of an event. Its line starts with the type: the agent tells events from answers by it."""
    name = "" if run.id is None else f', "id": {quote(run.id)}'
    text = f'{{"type": "{kind}"{name}, {_text_alone(fields) or encode(fields)[1:]}\n'
    return frame(LINE, run.connection, to_bytes(text))


def reply(connection: int, id_: str | None, fields: dict[str, Any]) -> bytes:
    """The frame of the answer to a question."""
    name = "" if id_ is None else f', "id": {quote(id_)}'
    rest = f", {encode(fields)[1:]}\n" if fields else "}\n"
    return frame(LINE, connection, to_bytes(f'{{"exit_code": 0{name}{rest}'))


def refusal(connection: int, id_: str | None, message: str) -> bytes:
    """The frame of the answer to a request that cannot be carried out."""
    tail = "" if id_ is None else f', "id": {quote(id_)}, "status": "error"'
    text = '{"exit_code": 2, "stdout": "", "stderr": "", "result_repr": null, '
    text += f'"error": {quote(message)}, "tables": []{tail}}}\n'
    return frame(LINE, connection, to_bytes(text))


def _text_alone(fields: dict[str, Any]) -> str | None:
    """The JSON of a bundle that is nothing but text, without its brace: what most values are."""
    data = fields.get("data")
    if data is None or len(data) != 1 or fields.get("metadata"):
        return None
    text = data.get("text/plain")
    return None if text is None else f'"data": {{"text/plain": {quote(text)}}}, "metadata": {{}}}}'
