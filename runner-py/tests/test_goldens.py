"""The frozen examples that the wire crate writes: this end reads them and speaks alike."""

import json
from pathlib import Path

import pytest
from conftest import DONE, RECEIVED, REQUEST, STARTED, Speaker

GOLDEN = Path(__file__).parent.parent.parent / "tests" / "golden" / "wire"


def test_every_request_of_the_goldens_is_understood(runner: Speaker) -> None:
    runner.ask(code="def make(): pass")
    for line in (GOLDEN / "cell-requests.jsonl").read_bytes().splitlines():
        request = json.loads(line)
        runner.send(REQUEST, line)
        if request.get("op") == "stdin":
            continue
        answer = runner.wait(request.get("id"))
        assert answer["exit_code"] in (0, 1), line


@pytest.mark.parametrize(
    ("golden", "request_"),
    [
        ("cell-answers", {"code": "1", "id": "a"}),
        ("completions", {"op": "complete", "code": "prin", "id": "a"}),
        ("inspections", {"op": "inspect", "code": "len", "id": "a"}),
        ("completeness", {"op": "is_complete", "code": "if x:", "id": "a"}),
        ("variables", {"op": "variables", "id": "a"}),
        ("pings", {"op": "ping", "id": "a"}),
        ("interrupts", {"op": "interrupt", "cell": "z", "id": "a"}),
    ],
)
def test_answers_have_the_fields_of_the_goldens(runner: Speaker, golden: str, request_: dict[str, str]) -> None:
    runner.ask(code="value = 1")
    told = runner.ask(**request_)
    frozen = [json.loads(line) for line in (GOLDEN / f"{golden}.jsonl").read_text().splitlines()]
    fields = {name: value for line in frozen for name, value in line.items()}
    assert set(told) - {"busy"} <= set(fields)
    for name in set(told) & set(fields):
        kinds = {type(line[name]) for line in frozen if name in line} | {type(None)}
        assert type(told[name]) in kinds, name


def test_frames_are_those_of_the_goldens(runner: Speaker) -> None:
    lines = (line.split(": ") for line in (GOLDEN / "frames.txt").read_text().splitlines())
    frames = {name: bytes.fromhex(data) for name, data in lines}
    runner.socket.sendall(frames["runner request"])
    assert runner.frame()[:2] == (RECEIVED, 7)
    kind, connection, payload = runner.frame()
    assert (kind, connection) == (STARTED, 7)
    assert set(json.loads(payload)) | {"output_bytes"} == set(json.loads(frames["runner started"][9:]))
    assert runner.frame()[:2] == (DONE, 7)
    runner.socket.sendall(frames["runner closed"] + frames["runner resumed"])
    assert runner.frame()[0] == frames["runner resumed ack"][0]
    runner.socket.sendall(frames["runner exit"])
    assert runner.process.wait(30) == 0
