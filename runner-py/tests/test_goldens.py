"""The frozen examples that the wire crate writes: this end reads them and speaks alike.

Compared are the fields, as paths into the JSON, both ways: what the goldens have must come from the runner,
and what comes from the runner must be in the goldens.
"""

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from conftest import DONE, RECEIVED, RESUMED_ACK, STARTED, Answer, Speaker
from vmrepl_runner import frames
from vmrepl_runner.cells import EXTENDING, read_run

GOLDEN = Path(__file__).parent.parent.parent / "tests" / "golden" / "wire"
FREE = ("data", "metadata")
"""Objects whose keys are not the wire's."""
AGENT_EVENTS = {"stdout", "stderr"}
AGENT_STATUSES = {"output_exceeded", "memory_exceeded", "runner_lost", "machine_lost"}


def golden(name: str) -> list[Answer]:
    return [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text().splitlines()]


def golden_frames() -> dict[str, bytes]:
    lines = (line.split(": ") for line in (GOLDEN / "frames.txt").read_text().splitlines())
    return {name.removeprefix("runner "): bytes.fromhex(data) for name, data in lines if name.startswith("runner ")}


def paths(values: Iterable[Any], at: str = "") -> set[str]:
    """Where in these values there is what: `matches[].text`."""
    found: set[str] = set()
    for value in values:
        if isinstance(value, dict) and at.rpartition(".")[2] not in FREE:
            for key, inner in value.items():
                found |= {f"{at}.{key}"} | paths([inner], f"{at}.{key}")
        elif isinstance(value, list):
            found |= paths(value, f"{at}[]")
    return found


FIGURE = "class Shown:\n    def _repr_mimebundle_(self): return {'image/png': 'aGVsbG8='}, {'width': 3}\n"
FRAME = "import pandas\ndf = pandas.DataFrame({'a': range(20)})\n"
ASKED: dict[str, list[dict[str, Any]]] = {
    "completions": [{"op": "complete", "code": "imp"}, {"op": "complete", "code": "callabl"}],
    "inspections": [{"op": "inspect", "code": "len"}, {"op": "inspect", "code": "no_such"}],
    "completeness": [{"op": "is_complete", "code": code} for code in ("1", "if x:", "x = = 1")],
    "variables": [{"op": "variables"}, {"op": "variables", "digest": True}],
    "pings": [{"op": "ping"}],
    "interrupts": [{"op": "interrupt", "cell": "c-1"}],
    "cell-answers": [
        {"code": FRAME + "z = 1\ndel z\n1", "show_tables": True},
        {"code": FIGURE + "display(Shown())\nraise ValueError('test')"},
        {"code": "while True: pass", "timeout_ms": 1},
    ],
}


@pytest.mark.parametrize("name", ASKED)
def test_answers_are_those_of_the_goldens(runner: Speaker, name: str) -> None:
    runner.ask(code=FRAME + "x = 1")
    told = [runner.ask(id=f"a-{number}", **request) for number, request in enumerate(ASKED[name])]
    if name == "cell-answers":
        # The agent puts its truth in place of our null.
        told = [answer | {"truncated": {"stdout": False, "stderr": False}} for answer in told]
    # Whether user code was at work when it was asked is the runner's own addition.
    assert paths(told) - {".busy"} == paths(golden(name))
    if name == "completeness":
        assert told == [line | {"id": f"a-{number}"} for number, line in enumerate(golden(name))]


def test_statuses_are_those_of_the_goldens(runner: Speaker) -> None:
    runner.request(code="while True: pass", id="i")
    runner.request(op="interrupt", cell="i", id="j")
    told = {runner.wait("i")["status"]}
    for number, code in enumerate(("", "1 / 0", "while True: pass")):
        told.add(runner.ask(code=code, id=f"a-{number}", timeout_ms=500)["status"])
    assert told | AGENT_STATUSES == {line["status"] for line in golden("cell-answers") if "status" in line}


def test_the_plain_answer_is_that_of_the_goldens(runner: Speaker) -> None:
    answers = golden("cell-answers")
    plain = [runner.ask(code="None"), runner.ask(code="print('hello')\n1 + 1")]
    assert [list(answer.items()) for answer in plain] == [list(answer.items()) for answer in answers[:2]]


def test_events_are_those_of_the_goldens(runner: Speaker) -> None:
    runner.start(FIGURE + FRAME + "input('name? ')\ndisplay(Shown())\ndf", "c-1", stream=True, allow_stdin=True)
    runner.events.append(runner.event("input_request"))
    runner.request(op="stdin", id="c-1", data="")
    done = runner.wait("c-1")
    runner.ask(code=FRAME, id="c-2", stream=True, show_tables=True)
    runner.ask(code="raise ValueError('test')", id="c-3", stream=True)
    frozen = golden("cell-events")
    kinds = {event["type"] for event in frozen} - AGENT_EVENTS
    assert {event["type"] for event in runner.events} == kinds - {"done"}
    for kind in kinds - {"done"}:
        ours = paths(event for event in runner.events if event["type"] == kind)
        assert ours == paths(event for event in frozen if event["type"] == kind), kind
    assert paths(event for event in frozen if event["type"] == "done") <= paths([done])
    mimes = {mime for event in frozen if event["type"] == "result" for mime in event["data"]}
    assert mimes <= {mime for event in runner.events if event["type"] == "result" for mime in event["data"]}


def test_every_request_of_the_goldens_is_understood(runner: Speaker) -> None:
    runner.ask(code="def make(): return 5")
    ops = set()
    for request in golden("cell-requests"):
        op = request.get("op", "run")
        ops.add(op)
        if op == "stdin":
            continue
        answer = runner.ask(**request)
        assert answer["exit_code"] == 0, request
        assert set(answer) >= ({"acted"} if op == "interrupt" else {"pong"} if op == "ping" else {"exit_code"})
    inputs = [request for request in golden("cell-requests") if request.get("op") == "stdin"]
    runner.request(code="import sys; sys.stdin.read()", id=f"{inputs[0]['id']}-again", allow_stdin=True)
    for request in inputs:
        runner.event("input_request")
        runner.request(**request | {"id": f"{inputs[0]['id']}-again"})
    assert runner.wait(f"{inputs[0]['id']}-again")["result_repr"] == repr(inputs[0]["data"])
    assert ops == {"run", "complete", "inspect", "is_complete", "variables", "interrupt", "ping", "stdin", "warm"}


def taken_in(request: Answer) -> Answer:
    # A queue is like no other queue.
    return {name: value if name != "lines" else True for name, value in vars(read_run(1, request)).items()}


def test_every_field_of_a_run_counts() -> None:
    runs = [request for request in golden("cell-requests") if request.get("op", "run") == "run"]
    seen = set()
    for request in runs:
        for name in request.keys() - {"code", "op"}:
            without = {key: value for key, value in request.items() if key != name}
            assert taken_in(request) != taken_in(without), name
            seen.add(name)
        assert read_run(1, request).extended == (not EXTENDING.isdisjoint(request))
    assert seen >= {"stream", "timeout_ms", "limits", "filename", "argv", "path", "allow_stdin", "store", "show_tables"}


def test_frames_are_read_and_written_as_in_the_goldens() -> None:
    ours, theirs = socket.socketpair()
    link = frames.Link(ours.fileno())
    for name, data in golden_frames().items():
        theirs.sendall(data)
        kind, connection, payload = link.receive(lambda: None) or (0, 0, b"")
        assert kind == getattr(frames, name.upper().replace(" ", "_")), name
        if kind == DONE:
            length = int.from_bytes(payload[:4], "big")
            assert frames.done(connection, payload[4 : 4 + length], payload[4 + length :]) == data
        assert frames.frame(kind, connection, payload) == data, name
    ours.close()
    theirs.close()


def test_a_conversation_in_the_frames_of_the_goldens(runner: Speaker) -> None:
    frozen = golden_frames()
    assert set(runner.ready) - {"taken"} == set(json.loads(frozen["ready"][9:]))
    runner.socket.sendall(frozen["request"])
    for kind, name in ((RECEIVED, "received"), (STARTED, "started")):
        found = runner.frame()
        assert found[:2] == (kind, frozen[name][4])
        # A limit that nobody has set is left out.
        assert set(json.loads(found[2])) == set(json.loads(frozen[name][9:])) - {"output_bytes"}
    kind, connection, payload = runner.frame()
    assert (kind, connection) == (DONE, 7)
    length = int.from_bytes(payload[:4], "big")
    assert payload[4 + length :].replace(b'"1"', b"null") == frozen["done"][13 + length :]
    runner.socket.sendall(frozen["taken"] + frozen["signalled"] + frozen["closed"] + frozen["resumed"])
    kind, connection, payload = runner.frame()
    assert (kind, connection) == (RESUMED_ACK, 0)
    assert json.loads(payload) == json.loads(frozen["resumed ack"][9:])
    runner.socket.sendall(frozen["exit"])
    assert runner.process.wait(30) == 0
