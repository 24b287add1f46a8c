"""Interrupts and timeouts: they stop the named cell, whatever it does, and nothing else."""

import json
import os
import select
import signal
import time

import pytest
from conftest import REQUEST, SIGNALLED, Speaker

BUSY = {
    "spin": "while True: pass",
    "sleep": "import time\ntime.sleep(600)",
    "lock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "queue": "import queue\nqueue.Queue().get()",
    "await": "import asyncio\nawait asyncio.sleep(600)",
    "spin in a task": "import asyncio\nasync def f():\n    while True: pass\nawait f()",
    "child": "import subprocess\nsubprocess.run(['sleep', '600'])",
    "read": "import os\nr, w = os.pipe()\nos.read(r, 1)",
    "repr": "class A:\n    def __repr__(self):\n        while True: pass\nA()",
    "str of error": "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
}


@pytest.mark.parametrize("how", BUSY)
@pytest.mark.parametrize("by", ["signal", "request", "timeout"])
def test_whatever_a_cell_does_it_stops(runner: Speaker, how: str, by: str) -> None:
    runner.start(BUSY[how], "c", **({"timeout_ms": 100} if by == "timeout" else {}))
    if by == "signal":
        os.kill(runner.process.pid, signal.SIGINT)
    elif by == "request":
        runner.request(op="interrupt", cell="c", id="i")
    answer = runner.wait("c")
    assert answer["status"] == ("timeout" if by == "timeout" else "interrupted")
    assert answer["exit_code"] == 1
    assert "vmrepl_runner" not in answer["error"]
    assert "base_events" not in answer["error"]
    if by == "timeout" and how != "str of error":
        assert answer["error"].rstrip().endswith("CellTimeout: the cell ran longer than 100 ms")
    assert runner.ask(code="40 + 2", id="after")["result_repr"] == "42"


def test_the_traceback_shows_where(runner: Speaker) -> None:
    runner.start("import time\ndef f():\n    print('[started]', flush=True); time.sleep(600)\nf()", "c")
    os.kill(runner.process.pid, signal.SIGINT)
    error = runner.wait("c")["error"]
    assert error.startswith('Traceback (most recent call last):\n  File "<cell 1>", line 4, in <module>\n')
    assert 'File "<cell 1>", line 3, in f\n    print(' in error
    assert error.endswith("KeyboardInterrupt\n")


def test_an_interrupt_names_its_cell(runner: Speaker) -> None:
    runner.start("while True: pass", "loop")
    runner.request(op="interrupt", cell="other", id="i")
    assert runner.wait("i")["acted"] is False
    assert runner.ask(op="interrupt", cell="loop", id="j")["acted"] is True
    cell = runner.wait("loop")
    assert (cell["status"], cell["error_name"], cell["error_value"]) == ("interrupted", "KeyboardInterrupt", "")
    runner.request(op="interrupt", cell="loop", id="k")
    assert runner.wait("k")["acted"] is False


def test_one_that_comes_with_its_cell_is_not_lost(runner: Speaker) -> None:
    for number in range(50):
        runner.request(code="while True: pass", id=f"c{number}")
        runner.request(op="interrupt", cell=f"c{number}", id=f"i{number}")
        assert runner.wait(f"i{number}")["acted"] is True
        assert runner.wait(f"c{number}")["status"] == "interrupted"


def test_none_leaks_into_the_next_cell(runner: Speaker) -> None:
    statuses = set()
    for number in range(300):
        runner.request(code=f"n = 0\nfor i in range({number * 7}): n += i", id=f"c{number}")
        os.kill(runner.process.pid, signal.SIGINT)
        answer = runner.wait(f"c{number}")
        statuses.add(answer["status"])
        assert (answer["error"] is None) == (answer["status"] == "ok")
        os.kill(runner.process.pid, signal.SIGINT)
    assert statuses <= {"ok", "interrupted"}
    assert runner.ask(code="1 + 1")["result_repr"] == "2"


def test_many_signals_do_no_harm(runner: Speaker) -> None:
    runner.start("try:\n    while True: pass\nfinally:\n    while True: pass", "c")
    runner.request(op="interrupt", cell="c", id="i")
    assert runner.wait("i")["acted"] is True
    while not select.select([runner.socket], [], [], 0.05)[0]:
        os.kill(runner.process.pid, signal.SIGINT)
    assert runner.wait("c")["status"] == "interrupted"
    assert runner.ask(code="1 + 1")["result_repr"] == "2"


def test_a_short_cell_meets_its_timeout(runner: Speaker) -> None:
    for number in range(20):
        answer = runner.ask(code="import time; time.sleep(0.001)", timeout_ms=2, id=str(number))
        assert answer["status"] in ("ok", "timeout")
    assert runner.ask(code="1 + 1", timeout_ms=60_000, id="last")["result_repr"] == "2"


def test_the_time_of_a_cell_that_waited_counts_from_its_start(runner: Speaker) -> None:
    runner.start("import time; time.sleep(0.4)", "first")
    runner.request(code="1", id="second", timeout_ms=200)
    runner.request(code="import time; time.sleep(600)", id="third", timeout_ms=100)
    assert runner.wait("first")["status"] == "ok"
    assert runner.wait("second")["status"] == "ok"
    assert runner.wait("third")["status"] == "timeout"


def test_closed_descriptors_disturb_no_timeout(runner: Speaker) -> None:
    runner.start("import os, time; os.closerange(3, 256); time.sleep(0.2)", "first")
    runner.request(code="import time; time.sleep(600)", id="second", timeout_ms=100)
    assert runner.wait("first")["status"] == "ok"
    assert runner.wait("second")["status"] == "timeout"


def test_a_handler_that_the_user_set_is_gone_in_the_next_cell(runner: Speaker) -> None:
    assert runner.ask(code="import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)")["error"] is None
    runner.start("while True: pass", "c")
    os.kill(runner.process.pid, signal.SIGINT)
    assert runner.wait("c")["status"] == "interrupted"


def test_a_task_may_clean_up(runner: Speaker) -> None:
    code = "import asyncio\ntry:\n    print('[started]', flush=True); await asyncio.sleep(600)\n"
    code += "finally:\n    await asyncio.sleep(0)\n    done = 1"
    runner.start(code, "c")
    os.kill(runner.process.pid, signal.SIGINT)
    answer = runner.wait("c")
    assert answer["status"] == "interrupted"
    assert "await asyncio.sleep(600)" in answer["error"]
    assert runner.ask(code="done")["result_repr"] == "1"


def test_a_cell_may_catch_it(runner: Speaker) -> None:
    runner.start(
        "try:\n    print('[started]', flush=True)\n    while True: pass\nexcept KeyboardInterrupt: x = 'caught'\nx",
        "c",
    )
    os.kill(runner.process.pid, signal.SIGINT)
    answer = runner.wait("c")
    assert (answer["status"], answer["result_repr"]) == ("ok", "'caught'")


@pytest.mark.parametrize("by", ["signal", "timeout"])
def test_what_a_clean_up_raises_hides_no_interrupt(runner: Speaker, by: str) -> None:
    # As `queue.Queue.get` does when the interrupt comes right after it gave back its lock.
    waits = "print('[started]', flush=True)\n    while True: pass"
    runner.start(
        f"import threading\nlock = threading.Lock()\ntry:\n    {waits}\nfinally: lock.release()",
        "c",
        **({"timeout_ms": 100} if by == "timeout" else {}),
    )
    if by == "signal":
        os.kill(runner.process.pid, signal.SIGINT)
    answer = runner.wait("c")
    assert answer["status"] == ("timeout" if by == "timeout" else "interrupted")
    assert answer["exit_code"] == 1
    assert (answer["error_name"], answer["error_value"]) == ("RuntimeError", "release unlocked lock")
    assert "During handling of the above exception" in answer["error"]


def test_an_interrupt_that_was_dealt_with_is_forgotten(runner: Speaker) -> None:
    waits = "print('[started]', flush=True)\n    while True: pass"
    runner.start(f"try:\n    {waits}\nexcept KeyboardInterrupt: pass\n1 / 0", "c")
    os.kill(runner.process.pid, signal.SIGINT)
    assert runner.wait("c")["status"] == "error"


def test_questions_are_answered_while_a_cell_runs(runner: Speaker) -> None:
    runner.ask(code="class Odd:\n    def __dir__(self): 1 / 0\n    word = 1\nodd = Odd(); value = {'key': [1]}")
    runner.start("while True: pass", "loop")
    assert runner.ask(op="ping", id="p") == {"exit_code": 0, "id": "p", "pong": True, "busy": True}
    found = runner.ask(op="complete", code="odd.wo")
    assert ([m["text"] for m in found["matches"]], found["busy"]) == (["word"], True)
    assert runner.ask(op="complete", code="value['k")["matches"][0]["text"] == "key"
    assert "Odd object" in runner.ask(op="inspect", code="odd")["data"]["text/plain"]
    assert {v["name"] for v in runner.ask(op="variables")["variables"]} == {"Odd", "odd", "value"}
    assert runner.ask(op="is_complete", code="if x:")["status"] == "incomplete"
    os.kill(runner.process.pid, signal.SIGINT)
    assert runner.wait("loop")["status"] == "interrupted"


def test_a_question_whose_user_code_hangs_is_answered(runner: Speaker) -> None:
    runner.ask(code="class Slow:\n    def __dir__(self):\n        while True: pass\n    fact = 1\nslow = Slow()")
    assert [m["text"] for m in runner.ask(op="complete", code="slow.fa")["matches"]] == ["fact"]
    assert runner.ask(code="1")["result_repr"] == "1"


def test_a_bad_interrupt_is_refused(runner: Speaker) -> None:
    runner.send(REQUEST, b'{"op": "interrupt"}')
    assert runner.answer()["exit_code"] == 2


def test_a_cell_that_waits_can_be_stopped(runner: Speaker) -> None:
    runner.start("while True: pass", "first")
    runner.request(code="ran = True", id="second")
    assert runner.ask(op="interrupt", cell="second", id="i")["acted"] is True
    assert runner.ask(op="interrupt", cell="first", id="j")["acted"] is True
    assert runner.wait("first")["status"] == runner.wait("second")["status"] == "interrupted"
    assert runner.run("int('ran' in globals())") == 0


def test_a_signal_that_nobody_noticed_is_repeated(runner: Speaker) -> None:
    # As if it had come between Python's last look for signals and the call that sleeps.
    sleep = "print('[started]', flush=True)\n    time.sleep(600)"
    runner.start(f"import time\ntry:\n    {sleep}\nexcept KeyboardInterrupt:\n    heard = 1", "c")
    told = {"cell": "c", "sent_ns": time.monotonic_ns() + 1_000_000}
    runner.send(SIGNALLED, json.dumps(told).encode())
    assert runner.wait("c")["status"] == "ok"
    assert runner.run("heard") == 1


def test_a_signal_that_was_noticed_is_not_repeated(runner: Speaker) -> None:
    sleep = "print('[started]', flush=True)\n        time.sleep(0.01)"
    caught = "except KeyboardInterrupt:\n        n += 1"
    runner.start(f"import time\nn = 0\nfor _ in range(20):\n    try:\n        {sleep}\n    {caught}\nn", "c")
    sent = time.monotonic_ns()
    os.kill(runner.process.pid, signal.SIGINT)
    runner.send(SIGNALLED, json.dumps({"cell": "c", "sent_ns": sent}).encode())
    runner.send(SIGNALLED, json.dumps({"cell": "another", "sent_ns": sent + 10**12}).encode())
    assert runner.wait("c")["result_repr"] == "1"


def test_a_timeout_is_not_lost_in_a_finalizer(runner: Speaker) -> None:
    code = "class Dying:\n    def __del__(self): sum(range(200))\nwhile True: Dying()"
    answer = runner.ask(code=code, timeout_ms=50)
    assert answer["status"] == "timeout"
    assert "ran longer than 50 ms" in answer["error"]
    assert answer["stderr"] == ""


def test_a_hook_that_the_user_set_stays(runner: Speaker) -> None:
    runner.ask(code="import sys\nseen = []\nsys.unraisablehook = lambda what: seen.append(what.exc_type.__name__)")
    runner.ask(code="class Bad:\n    def __del__(self): 1 / 0\nBad()\nNone")
    assert runner.run("seen") == ["ZeroDivisionError"]


def test_what_a_finalizer_raises_is_told(runner: Speaker) -> None:
    answer = runner.ask(code="class Bad:\n    def __del__(self): 1 / 0\nBad()\nNone")
    assert "Exception ignored in" in answer["stderr"]
    assert "ZeroDivisionError" in answer["stderr"]
