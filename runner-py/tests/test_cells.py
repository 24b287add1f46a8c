"""Cells: the plain form bit for bit, the extended form, and what cells may do to the runner."""

import json
import os
import signal

from conftest import REQUEST, RESUMED, RESUMED_ACK, STARTED, Speaker


def test_the_plain_form_is_exactly_the_six_fields(runner: Speaker) -> None:
    answer = runner.ask(code="print('Hello')\n1 + 1")
    assert list(answer) == ["exit_code", "stdout", "stderr", "result_repr", "error", "tables"]
    assert answer == {
        "exit_code": 0,
        "stdout": "Hello\n",
        "stderr": "",
        "result_repr": "2",
        "error": None,
        "tables": [],
    }


def test_blank_code_is_the_empty_answer(runner: Speaker) -> None:
    for code in ("", "  \n\n", "# only a comment"):
        answer = runner.ask(code=code)
        assert (answer["exit_code"], answer["result_repr"], answer["error"]) == (0, None, None)


def test_names_live_on_and_values_are_kept(runner: Speaker) -> None:
    assert runner.ask(code="x = 20")["result_repr"] is None
    assert runner.ask(code="x + 1")["result_repr"] == "21"
    assert runner.ask(code="_ + 1")["result_repr"] == "22"
    assert runner.ask(code="Out[2]")["result_repr"] == "21"
    assert runner.ask(code="__name__")["result_repr"] == "'__main__'"


def test_an_exception_shows_the_users_lines_and_hides_ours(runner: Speaker) -> None:
    answer = runner.ask(code="def f():\n    raise ValueError('test')\nf()")
    assert answer["exit_code"] == 1
    error = answer["error"]
    assert error.startswith('Traceback (most recent call last):\n  File "<cell 1>", line 3, in <module>\n    f()')
    assert error.endswith("ValueError: test\n")
    assert "vmrepl_runner" not in error


def test_a_syntax_error_has_a_caret(runner: Speaker) -> None:
    error = runner.ask(code="x = = 1")["error"]
    assert 'File "<cell 1>", line 1' in error
    assert "^" in error
    assert error.endswith("SyntaxError: invalid syntax\n")
    assert "Traceback" not in error


def test_leaving_is_a_number(runner: Speaker) -> None:
    assert runner.ask(code="import sys; sys.exit(7)")["exit_code"] == 7
    assert runner.ask(code="sys.exit()")["exit_code"] == 0
    answer = runner.ask(code="sys.exit('bye')")
    assert (answer["exit_code"], answer["stderr"], answer["error"]) == (1, "bye\n", None)
    assert runner.ask(code="1")["result_repr"] == "1"


def test_bad_requests_are_answered(runner: Speaker) -> None:
    for line in (b"not json", b"[1]", b"{}", b'{"code": 1}', b'{"op": "dance"}', b'{"code": "1", "timeout_ms": "x"}'):
        runner.send(REQUEST, line)
        answer = runner.answer()
        assert answer["exit_code"] == 2, line
        assert answer["error"]


def test_the_extended_form_tells_more(runner: Speaker) -> None:
    answer = runner.ask(code="import os.path as p, json\na = b = 1\ndel a\n[q := 3]", id="x")
    assert answer["id"] == "x"
    assert answer["status"] == "ok"
    assert answer["names"] == {"bound": ["b", "json", "p", "q"], "deleted": ["a"]}
    assert answer["result"]["data"]["text/plain"] == "[3]"
    assert answer["execution_count"] == 1
    assert answer["timing"]["total_ms"] >= 0


def test_the_same_id_runs_once(runner: Speaker) -> None:
    runner.ask(code="n = 0", id="a")
    first = runner.ask(code="n += 1; n", id="b")
    again = runner.ask(code="n += 1; n", id="b")
    assert first["result_repr"] == again["result_repr"] == "1"
    assert runner.ask(code="n", id="c")["result_repr"] == "1"


def test_an_interrupt_acts_on_the_named_cell_only(runner: Speaker) -> None:
    runner.send(REQUEST, json.dumps({"code": "while True: pass", "id": "loop"}).encode())
    while runner.frame()[0] != STARTED:
        pass
    runner.send(REQUEST, json.dumps({"op": "interrupt", "cell": "other"}).encode())
    assert runner.answer()["acted"] is False
    runner.send(REQUEST, json.dumps({"op": "interrupt", "cell": "loop", "id": "i"}).encode())
    answers = [runner.answer(), runner.answer()]
    cell = next(a for a in answers if a.get("id") == "loop")
    assert (cell["status"], cell["exit_code"], cell["error_name"]) == ("interrupted", 1, "KeyboardInterrupt")
    assert runner.ask(code="1")["result_repr"] == "1"


def test_a_signal_between_cells_does_nothing(runner: Speaker) -> None:
    os.kill(runner.process.pid, signal.SIGINT)
    assert runner.ask(code="41 + 1")["result_repr"] == "42"


def test_a_timeout_is_told_apart(runner: Speaker) -> None:
    answer = runner.ask(code="import time\ntime.sleep(60)", timeout_ms=50, id="t")
    assert (answer["status"], answer["exit_code"]) == ("timeout", 1)
    assert runner.ask(code="1")["result_repr"] == "1"


def test_top_level_await_and_tasks_that_live_on(runner: Speaker) -> None:
    code = "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 5\nt = asyncio.ensure_future(f())\n"
    code += "await f()"
    assert runner.ask(code=code)["result_repr"] == "5"
    assert runner.ask(code="await t")["result_repr"] == "5"


def test_input_is_asked_from_the_host(runner: Speaker) -> None:
    assert "EOFError" in runner.ask(code="input()")["error"]
    runner.send(REQUEST, json.dumps({"code": "input('name? ') * 2", "id": "q", "allow_stdin": True}).encode())
    events: list[dict[str, object]] = []
    asked = runner.answer(events)
    assert (asked["prompt"], asked["password"]) == ("name? ", False)
    assert runner.ask(op="stdin", id="q", data="ab\n")["result_repr"] == "'abab'"


def test_streams_that_the_user_closed_come_back(runner: Speaker) -> None:
    runner.ask(code="import sys; sys.stdout.close()")
    assert runner.ask(code="print('again')")["stdout"] == "again\n"
    runner.ask(code="sys.stdout = None")
    assert runner.ask(code="print('and again')")["stdout"] == "and again\n"


def test_a_forked_child_that_falls_out_of_its_cell_is_silent(runner: Speaker) -> None:
    code = "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\npid > 0"
    assert runner.ask(code=code)["result_repr"] == "True"
    assert runner.ask(code="2")["result_repr"] == "2"


def test_strange_text_is_strict_json(runner: Speaker) -> None:
    assert runner.ask(code=r"'\ud800'", id="s")["result_repr"] == r"'\ud800'"
    assert runner.ask(code=r"raise ValueError('\ud800')", id="v")["error_value"] == "\\ud800"
    answer = runner.ask(code="class A:\n    def __repr__(self): return '\\ud800'\nA()")
    assert answer["result_repr"] == "\\ud800"


def test_a_repr_that_raises_is_told_in_its_place(runner: Speaker) -> None:
    answer = runner.ask(code="class A:\n    def __repr__(self): raise RuntimeError('no')\nA()")
    assert (answer["exit_code"], answer["error"]) == (0, None)
    assert answer["result_repr"] == "<A object, whose repr raised RuntimeError: no>"


def test_streamed_events_come_in_order(runner: Speaker) -> None:
    runner.send(REQUEST, json.dumps({"code": "display(1)\n2", "id": "e", "stream": True}).encode())
    events: list[dict[str, object]] = []
    answer = runner.answer(events)
    assert [e["type"] for e in events] == ["display", "result"]
    assert answer["type"] == "done"


def test_a_resume_seeds_anew_but_keeps_the_users_seed(runner: Speaker) -> None:
    runner.ask(code="import random; state = random.getstate()")

    def resume(rng: str) -> None:
        runner.send(RESUMED, json.dumps({"generation": 2, "rng": rng}).encode(), 0)
        while runner.frame()[0] != RESUMED_ACK:
            pass

    resume("keep")
    assert runner.ask(code="random.getstate() == state")["result_repr"] == "False"
    runner.ask(code="random.seed(1); state = random.getstate()")
    resume("keep")
    assert runner.ask(code="random.getstate() == state")["result_repr"] == "True"
    resume("fresh")
    assert runner.ask(code="random.getstate() == state")["result_repr"] == "False"


def test_questions(runner: Speaker) -> None:
    runner.ask(code="value = {'alpha': 1}\ndef func(arg, *, word=1):\n    'Doc.'")
    assert [m["text"] for m in runner.ask(op="complete", code="val")["matches"]] == ["value"]
    found = runner.ask(op="complete", code="x = value.ke", cursor=12)
    assert (found["matches"][0]["text"], found["cursor_start"]) == ("keys", 10)
    assert runner.ask(op="complete", code="value['al")["matches"][0]["text"] == "alpha"
    assert runner.ask(op="complete", code="func(wo")["matches"][0]["text"] == "word="
    assert "Doc." in runner.ask(op="inspect", code="func", cursor=2)["data"]["text/plain"]
    assert runner.ask(op="inspect", code="nothing")["found"] is False
    assert runner.ask(op="is_complete", code="for x in y:")["status"] == "incomplete"
    names = {v["name"]: v for v in runner.ask(op="variables")["variables"]}
    assert set(names) == {"value", "func"}
    assert runner.ask(op="ping")["pong"] is True


def test_warm_ups_leave_no_trace(runner: Speaker) -> None:
    assert runner.ask(op="warm", code="secret = 1", id="w", freeze=True)["exit_code"] == 0
    assert runner.ask(op="warm", code="1/0", id="w2")["exit_code"] == 1
    answer = runner.ask(code="'secret' in globals()", id="x")
    assert (answer["result_repr"], answer["execution_count"]) == ("False", 1)
