"""Requests, frames and the order of things: what a client and the agent can rely on."""

import json
import struct

from conftest import CLOSED, DONE, LINE, RECEIVED, REQUEST, STARTED, TAKEN, Speaker

BAD = {
    b"not json": "the request is not JSON",
    b"": "the request is not JSON",
    b'{"code": "1"} x': "the request is not JSON",
    b"\xff": "the request is not JSON",
    b"[" * 100_000: "the request is not JSON",
    b"[1]": "the request is not a JSON object",
    b"{}": "`code` is missing",
    b'{"code": 1}': "`code` must be a string, not a number",
    b'{"code": null, "id": "x"}': "`code` is missing",
    b'{"code": "1", "id": 5}': "`id` must be a string",
    b'{"op": "dance"}': '`op` is "dance", which is not known',
    b'{"op": ["run"], "code": "1"}': '`op` is ["run"], which is not known',
    b'{"code": "1", "timeout_ms": "x"}': "`timeout_ms` must be a number of milliseconds",
    b'{"code": "1", "timeout_ms": -1}': "`timeout_ms` must be a number of milliseconds",
    b'{"code": "1", "argv": [1]}': "`argv` must be an array of strings",
    b'{"code": "1", "stream": "yes"}': "`stream` must be true or false, not a string",
    b'{"code": "1", "filename": {}}': "`filename` must be a string, not an object",
    b'{"code": "1", "limits": []}': "`limits` must be an object, not an array",
    b'{"op": "complete", "code": 1}': "`code` must be a string",
    b'{"op": "complete", "code": "x", "cursor": "0"}': "`cursor` must be a number",
}


def test_bad_requests_are_answered(runner: Speaker) -> None:
    for line, message in BAD.items():
        runner.send(REQUEST, line)
        assert runner.frame()[0] == RECEIVED
        answer = runner.answer()
        assert list(answer)[:6] == ["exit_code", "stdout", "stderr", "result_repr", "error", "tables"]
        assert answer["exit_code"] == 2, line
        assert message in answer["error"]
    assert runner.run("1") == 1


def test_the_halves_of_an_answer(runner: Speaker) -> None:
    runner.request(code="1 + 1")
    while (frame := runner.frame())[0] != DONE:
        pass
    length = struct.unpack(">I", frame[2][:4])[0]
    assert frame[2][4 : 4 + length] == b'{"exit_code": 0, '
    assert frame[2][4 + length :] == b'"result_repr": "2", "error": null, "tables": []}'
    runner.send(TAKEN, connection=0)
    runner.request(code="1 + 1", id="x")
    while (frame := runner.frame())[0] != DONE:
        pass
    assert frame[2][4 + length :].startswith(b'"truncated": null, ')
    assert frame[2].count(b'"truncated": null') == 1


def test_the_extended_form_tells_more(runner: Speaker) -> None:
    answer = runner.ask(code="import os.path as p, json\na = b = 1\ndel a\n[q := 3]", id="x")
    assert (answer["id"], answer["status"], answer["execution_count"]) == ("x", "ok", 1)
    assert answer["names"] == {"bound": ["b", "json", "p", "q"], "deleted": ["a"]}
    assert answer["result"] == {"data": {"text/plain": "[3]"}, "metadata": {}}
    assert answer["displays"] == []
    assert answer["timing"]["total_ms"] >= answer["timing"]["run_ms"] >= 0
    names = runner.ask(code="from keyword import *", id="y")["names"]
    assert {"kwlist", "iskeyword"} <= set(names["bound"])


def test_a_started_cell_is_told(runner: Speaker) -> None:
    runner.request(code="1", id="x", stream=True, limits={"output_bytes": 5})
    expected = {"cell": "x", "id": "x", "stream": True, "extended": True, "output_bytes": 5}
    assert runner.until(STARTED) == expected
    runner.wait("x")
    runner.request(code="1")
    assert runner.until(STARTED) == {"cell": "cell-2", "id": None, "stream": False, "extended": False}


def test_streamed_events_come_in_order(runner: Speaker) -> None:
    answer = runner.ask(code="display(1)\nx = 5\ndisplay('a', 'b')\n2", id="e", stream=True)
    assert [event["type"] for event in runner.events] == ["display", "display", "display", "result"]
    assert all(event["id"] == "e" for event in runner.events)
    assert (answer["type"], answer["displays"], answer["result_repr"]) == ("done", [], "2")
    runner.ask(code="1 / 0", id="f", stream=True)
    error = runner.events[-1]
    assert (error["type"], error["name"], error["value"]) == ("error", "ZeroDivisionError", "division by zero")
    assert error["traceback"].startswith("Traceback")


def test_the_same_id_runs_once(runner: Speaker) -> None:
    runner.ask(code="n = 0", id="a")
    first = runner.ask(code="n += 1; n", id="b")
    again = runner.ask(code="n += 1; n", id="b")
    assert first["result_repr"] == again["result_repr"] == "1"
    assert first["timing"] == again["timing"]
    assert runner.ask(code="n", id="c")["result_repr"] == "1"
    for number in range(70):
        runner.ask(code="None", id=f"fill{number}")
    assert runner.ask(code="n += 1; n", id="b")["result_repr"] == "2"


def test_a_retry_joins_the_running_cell(runner: Speaker) -> None:
    runner.start("m = 0\nm += int(input())\nm", "j", allow_stdin=True)
    runner.event("input_request")
    runner.request(connection=2, code="m += 1", id="j")
    assert runner.until(RECEIVED) == {"id": "j", "op": "run"}
    runner.request(op="stdin", id="j", data="5")
    answered = [runner.frame()[:2], runner.frame()[:2]]
    assert answered == [(DONE, 1), (DONE, 2)]


def test_cells_wait_in_order_for_the_agent_to_take_output(runner: Speaker) -> None:
    for number in range(3):
        runner.request(code=f"print({number})", id=str(number))
    kinds = [runner.frame()[0] for _ in range(5)]
    assert sorted(kinds[:5]) == sorted([RECEIVED, RECEIVED, RECEIVED, STARTED, DONE])
    assert runner.drain(runner.out) == "0\n"
    for number in (1, 2):
        runner.send(TAKEN, connection=0)
        assert runner.until(STARTED)["cell"] == str(number)
        assert runner.frame()[0] == DONE
        assert runner.drain(runner.out) == f"{number}\n"


def test_the_queue_is_bounded(runner: Speaker) -> None:
    runner.start("while True: pass", "loop")
    for number in range(64):
        runner.request(code="1", id=f"w{number}")
    assert "cells wait already" in runner.ask(code="1", id="over")["error"]
    assert runner.ask(op="interrupt", cell="loop", id="i")["acted"]
    assert runner.wait("loop")["status"] == "interrupted"
    assert all(runner.wait(f"w{number}")["result_repr"] == "1" for number in range(64))


def test_a_client_that_went_away_stops_nothing(runner: Speaker) -> None:
    runner.start("try: input()\nexcept EOFError: left = True", "c", allow_stdin=True, stream=True)
    runner.event("input_request")
    runner.send(CLOSED)
    assert runner.wait("c")["status"] == "ok"
    assert runner.run("left") is True


def test_large_requests_and_answers(runner: Speaker) -> None:
    answer = runner.ask(code="x = '" + "y" * (15 << 20) + "'\nlen(x)")
    assert answer["result_repr"] == str(15 << 20)
    answer = runner.ask(code="import json\nfor i in range(40): display(x[:1 << 20])\nx", id="big")
    assert answer["status"] == "ok"
    assert len(json.dumps(answer)) < 14 << 20
    assert "a display was left out" in answer["stderr"]


def test_the_debugger(runner: Speaker) -> None:
    runner.request(code="def f(x):\n    breakpoint()\n    return x + 1\nf(1)", id="d", allow_stdin=True)
    for command in ("p x", "w", "n", "n", "n", "n"):
        kind, _, payload = runner.frame()
        while kind not in (LINE, DONE):
            kind, _, payload = runner.frame()
        if kind == DONE:
            break
        assert json.loads(payload)["prompt"] == "(Pdb) "
        runner.request(op="stdin", id="d", data=command)
    shown = runner.drain(runner.out)
    assert "<cell 1>(3)f()" in shown
    assert "vmrepl_runner" not in shown
    runner.send(TAKEN, connection=0)
    runner.request(code="breakpoint()\nx = 1", id="q", allow_stdin=True)
    runner.event("input_request")
    runner.request(op="stdin", id="q", data="q")
    assert runner.wait("q")["error_name"] == "BdbQuit"
    assert runner.run("1") == 1
