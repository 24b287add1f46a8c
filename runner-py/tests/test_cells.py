"""Cells: values, names, errors, and what user code may do to the process without costing the session."""

import pytest
from conftest import Speaker


def test_the_plain_answer_is_bit_for_bit(runner: Speaker) -> None:
    assert list(runner.ask(code="1 + 1").items()) == [
        ("exit_code", 0),
        ("stdout", ""),
        ("stderr", ""),
        ("result_repr", "2"),
        ("error", None),
        ("tables", []),
    ]
    answer = runner.ask(code="import sys; print('out'); print('err', file=sys.stderr); None")
    assert (answer["stdout"], answer["stderr"], answer["result_repr"]) == ("out\n", "err\n", None)
    for code in ("", "  \n", "# nothing"):
        assert runner.ask(code=code) == runner.ask(code="None")


def test_values_are_kept(runner: Speaker) -> None:
    assert runner.ask(code="x = 20")["result_repr"] is None
    assert runner.ask(code="x + 1")["result_repr"] == "21"
    assert runner.ask(code="_ + 1")["result_repr"] == "22"
    assert runner.run("[_, __, Out[2], Out[3], len(In)]") == [22, 21, 21, 22, 5]
    assert runner.ask(code="100", store=False)["result_repr"] == "100"
    assert runner.ask(code="_[0], ___", id="c")["result_repr"] == "(22, 21)"
    assert runner.ask(code="1", id="d")["execution_count"] == 6
    runner.ask(code="_ = 'mine'")
    runner.ask(code="5")
    assert runner.ask(code="_")["result_repr"] == "'mine'"


def test_the_namespace_is_main(runner: Speaker) -> None:
    runner.ask(code="import sys, pickle, dataclasses, inspect\nclass A: pass\ndef f():\n    return 1  # here")
    assert runner.ask(code="sys.modules['__main__'].__dict__ is globals()")["result_repr"] == "True"
    assert runner.ask(code="type(pickle.loads(pickle.dumps(A()))) is A")["result_repr"] == "True"
    assert runner.ask(code="inspect.getsource(f)")["result_repr"] == repr("def f():\n    return 1  # here\n")
    assert runner.ask(code="@dataclasses.dataclass\nclass P:\n    x: int\nP(1)")["result_repr"] == "P(x=1)"
    code = "import multiprocessing\nwith multiprocessing.get_context('fork').Pool(1) as pool: r = pool.map(g, [2])\nr"
    runner.ask(code="def g(n): return n * 2")
    assert runner.run(code) == [4]


def test_it_is_a_fresh_python(runner: Speaker) -> None:
    names = ["__builtins__", "__doc__", "__loader__", "__name__", "__package__", "__spec__", "In", "Out"]
    assert runner.run("sorted(globals())") == sorted(names)
    assert runner.run("import sys, os, linecache, threading; sys.argv, sys.path[0]") == ([""], "")
    assert runner.run("[p for p in sys.path if 'runner' in p]") == []
    assert runner.run("hasattr(sys, 'last_value'), 'VMREPL_RUNNER_FD' in os.environ") == (False, False)
    assert runner.run("[k for k in linecache.cache if k.startswith('<')][0]") == "<cell 1>"
    assert runner.run("threading.current_thread() is threading.main_thread()") is True


def test_futures_hold_for_later_cells(runner: Speaker) -> None:
    runner.ask(code="from __future__ import annotations")
    assert runner.ask(code="def f(x: nothing): pass\nf.__annotations__")["result_repr"] == "{'x': 'nothing'}"


def test_a_script_finds_its_surroundings(runner: Speaker) -> None:
    code = "import sys\n(__file__, sys.argv, sys.path[:2])"
    answer = runner.ask(code=code, filename="a/run.py", argv=["run.py", "-x"], path=["/one", "/two"])
    assert answer["result_repr"] == "('a/run.py', ['run.py', '-x'], ['/one', '/two'])"
    answer = runner.ask(code="def f():\n    1 / 0\nf()", filename="a/run.py")
    assert 'File "a/run.py", line 2, in f\n    1 / 0' in answer["error"]


def test_an_exception_shows_the_users_lines_and_hides_ours(runner: Speaker) -> None:
    answer = runner.ask(code="def f():\n    raise ValueError('test')\nf()")
    assert answer["exit_code"] == 1
    assert answer["error"] == (
        'Traceback (most recent call last):\n  File "<cell 1>", line 3, in <module>\n    f()\n'
        "  File \"<cell 1>\", line 2, in f\n    raise ValueError('test')\nValueError: test\n"
    )
    answer = runner.ask(code="1", id="a") | runner.ask(code="raise ValueError('x')", id="b")
    assert (answer["error_name"], answer["error_value"], answer["status"]) == ("ValueError", "x", "error")


CHAINED = {
    "try: 1 / 0\nexcept Exception as e: raise KeyError('k') from e": "direct cause",
    "try: 1 / 0\nexcept Exception: open('/no/such')": "During handling",
    "raise ExceptionGroup('both', [ValueError(1), TypeError(2)])": "ExceptionGroup: both (2 sub-exceptions)",
    "import json; json.loads('{')": "json/decoder.py",
    "try: input()\nexcept EOFError: raise KeyError": "EOF when reading a line",
    "async def f(): 1 / 0\nawait f()": "ZeroDivisionError: division by zero\n",
    "def f(): f()\nf()": "[Previous line repeated",
    "raise MemoryError": "MemoryError\n",
    "class E(Exception):\n    def __str__(self): raise E\nraise E": "E: <exception str() failed>\n",
    "class E(Exception):\n    def __repr__(self): raise E\nraise E": "E\n",
    "exec('1 +')": "SyntaxError: invalid syntax\n",
    "raise GeneratorExit": "GeneratorExit\n",
    "raise ValueError('x' * 10_000_000)": "characters left out",
    "e = ValueError(1); e.__cause__ = e; raise e": "ValueError: 1\n",
    "e = ValueError(1); e.add_note('noted'); raise e": "noted\n",
}


@pytest.mark.parametrize("code", CHAINED)
def test_every_kind_of_traceback(runner: Speaker, code: str) -> None:
    error = runner.ask(code=code)["error"]
    assert error.startswith(("Traceback (most recent call last):\n", "  + Exception Group Traceback"))
    assert CHAINED[code] in error
    assert "vmrepl_runner" not in error
    assert "<cell 1>" in error
    assert len(error) < 1 << 20


def test_errors_of_syntax_have_carets(runner: Speaker) -> None:
    expected = '  File "<cell 1>", line 1\n    x = = 1\n        ^\nSyntaxError: invalid syntax\n'
    assert runner.ask(code="x = = 1")["error"] == expected
    # Found by the compiler, not by the parser.
    expected = "    return 1\n    ^^^^^^^^\nSyntaxError: 'return' outside function\n"
    assert expected in runner.ask(code="a = 1\nreturn 1")["error"]
    assert "null bytes" in runner.ask(code="a\0b")["error"]
    assert runner.ask(code="'\ud800'")["exit_code"] == 1
    assert "too many nested" in runner.ask(code="(" * 500)["error"]
    assert runner.run("1") == 1


LEAVING = {
    "raise SystemExit": (0, ""),
    "exit()": (0, ""),
    "quit(3)": (3, ""),
    "import sys; sys.exit(7)": (7, ""),
    "import sys; sys.exit('bye')": (1, "bye\n"),
    "import sys; sys.exit(True)": (1, ""),
    "import sys; sys.exit(1 << 40 | 5)": (5, ""),
    "import sys; await __import__('asyncio').sleep(0); sys.exit(4)": (4, ""),
}


@pytest.mark.parametrize("code", LEAVING)
def test_leaving_is_a_number(runner: Speaker, code: str) -> None:
    answer = runner.ask(code=code)
    assert (answer["exit_code"], answer["stderr"], answer["error"]) == (*LEAVING[code], None)
    assert runner.ask(code="print(input.__name__)")["stdout"] == "input\n"


def test_await_at_the_top_and_tasks_that_live_on(runner: Speaker) -> None:
    code = "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 5\nt = asyncio.create_task(f())\n"
    assert runner.ask(code=code + "await f()")["result_repr"] == "5"
    assert runner.ask(code="await t")["result_repr"] == "5"
    assert runner.ask(code="asyncio.run(f())")["result_repr"] == "5"
    assert runner.ask(code="[i async for i in (j for j in [])]")["exit_code"] == 1
    assert runner.ask(code="async with asyncio.timeout(1): x = await f()\nx")["result_repr"] == "5"


def test_values_that_misbehave(runner: Speaker) -> None:
    answer = runner.ask(code="class A:\n    def __repr__(self): raise RuntimeError('no')\nA()")
    assert (answer["exit_code"], answer["result_repr"]) == (0, "<A object, whose repr raised RuntimeError: no>")
    answer = runner.ask(code="'x' * 50_000_000")
    assert len(answer["result_repr"]) < 1 << 20
    assert "characters left out" in answer["result_repr"]
    answer = runner.ask(code="class A:\n    def __repr__(self): return '\\ud800\\x00\\u2028'\nA()", id="s")
    assert answer["result"]["data"]["text/plain"] == answer["result_repr"] == "\\ud800\x00\u2028"
    assert runner.ask(code="raise ValueError('\\ud800')", id="v")["error_value"] == "\\ud800"
    assert runner.ask(code="import sys; sys.setrecursionlimit(40)", id="r")["exit_code"] in (0, 1)
    assert runner.run("1") == 1


STREAMS = {
    "closed": "import sys; sys.stdout.close(); sys.stderr.close()",
    "none": "import sys; sys.stdout = sys.stderr = None",
    "replaced": "import sys, io; sys.stdout = io.StringIO(); print('lost')",
    "odd": "import sys; sys.stdout = 5",
    "descriptors": "import os; os.close(1); os.close(2)",
    "stolen": "import os; os.close(1); fd = os.open('/dev/null', os.O_WRONLY)",
    "shared": "import os, sys; f = os.fdopen(1, 'w'); del f",
    "input": "import sys; sys.stdin.close()",
    "most": "import os\nfor fd in range(3, 256):\n    try: os.close(fd)\n    except OSError: pass",
}


@pytest.mark.parametrize("how", STREAMS)
def test_streams_come_back(runner: Speaker, how: str) -> None:
    runner.ask(code=STREAMS[how])
    answer = runner.ask(code="import sys\nprint('again')\nprint('and', file=sys.stderr)\nsys.stdin.read()")
    assert (answer["stdout"], answer["stderr"], answer["result_repr"]) == ("again\n", "and\n", "''")
    assert runner.ask(code="import os; os.system('echo shell')")["stdout"] == "shell\n"


def test_output_is_ahead_of_its_answer(runner: Speaker) -> None:
    assert runner.ask(code="print('no newline', end='')")["stdout"] == "no newline"
    code = "import io, sys; sys.stdout = io.TextIOWrapper(io.FileIO(1, 'w', closefd=False)); sys.stdout.write('x')"
    assert runner.ask(code=code)["stdout"] == "x"


CHILDREN = {
    "falls out": "import os\npid = os.fork()\nif pid: s = os.waitpid(pid, 0)[1]\npid > 0",
    "raises": "import os\npid = os.fork()\nif not pid: raise ValueError\ns = os.waitpid(pid, 0)[1]\npid > 0",
    "displays": "import os\npid = os.fork()\nif not pid: display(1)\nelse: s = os.waitpid(pid, 0)[1]\npid > 0",
    "thread": "import os, threading\nthreads = []\ndef f():\n    global s\n    pid = os.fork()\n"
    "    if pid: s = os.waitpid(pid, 0)[1]\nt = threading.Thread(target=f); t.start(); t.join()\nTrue",
}


@pytest.mark.parametrize("how", CHILDREN)
def test_a_forked_child_does_not_speak(runner: Speaker, how: str) -> None:
    answer = runner.ask(code=CHILDREN[how], id="c")
    assert answer["result_repr"] == "True"
    assert ("ValueError" in answer["stderr"]) == (how == "raises")
    assert answer["stdout"] == ("1\n" if how == "displays" else "")
    assert runner.ask(code="os.waitstatus_to_exitcode(s)")["result_repr"] == ("1" if how == "raises" else "0")


def test_programs_do_not_get_the_socket(runner: Speaker) -> None:
    code = "import subprocess\nsubprocess.run(['ls', '/proc/self/fd'], close_fds=False, capture_output=True, text=True)"
    assert max(int(fd) for fd in runner.run(f"{code}.stdout.split()")) < 64


def test_threads_print_after_their_cell(runner: Speaker) -> None:
    code = "import threading\ngo = threading.Event()\ndef f():\n    go.wait()\n    print('late')\n"
    runner.ask(code=code + "t = threading.Thread(target=f); t.start()")
    assert runner.ask(code="go.set(); t.join()")["stdout"] == "late\n"
    answer = runner.ask(code="t = threading.Thread(target=exit); t.start(); t.join()")
    assert (answer["exit_code"], answer["stderr"]) == (0, "")
    answer = runner.ask(code="t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()")
    assert "ZeroDivisionError" in answer["stderr"]


def test_warnings_are_told_in_each_cell(runner: Speaker) -> None:
    for _ in range(2):
        assert "UserWarning: careful" in runner.ask(code="import warnings; warnings.warn('careful')")["stderr"]


def test_the_end_runs_what_was_to_run_at_the_end(runner: Speaker) -> None:
    runner.ask(code="import atexit, os; atexit.register(lambda: os.write(1, b'bye'))")
    runner.send(4)
    assert runner.process.wait(30) == 0
    assert runner.drain(runner.out) == "bye"


def test_without_an_agent_there_is_no_runner(runner: Speaker) -> None:
    runner.start("while True: pass", "c")
    runner.socket.shutdown(2)
    assert runner.process.wait(30) == 1


def test_warm_ups_leave_no_trace(runner: Speaker) -> None:
    warm = runner.ask(op="warm", code="import decimal\nsecret = 1\nprint('warming')", id="w")
    assert (warm["exit_code"], warm["stdout"], warm["status"]) == (0, "warming\n", "ok")
    assert runner.ask(op="warm", code="secret + 1", id="w2", freeze=True)["result_repr"] == "2"
    failed = runner.ask(op="warm", code="secret", id="w3")
    assert (failed["exit_code"], failed["error_name"]) == (1, "NameError")
    answer = runner.ask(code="import sys\n'secret' in globals(), 'decimal' in sys.modules, len(In)", id="x")
    assert (answer["result_repr"], answer["execution_count"]) == ("(False, True, 2)", 1)
    assert runner.run("import gc; int(gc.get_freeze_count() > 1000)") == 1


def test_a_client_may_number_its_cells(runner: Speaker) -> None:
    runner.ask(code="'first'", id="a")
    answer = runner.ask(code="'seventh'", id="b", execution_count=7)
    assert answer["execution_count"] == 7
    assert runner.run("Out[1], Out[7], In[1], In[2], In[7]") == ("first", "seventh", "'first'", "", "'seventh'")
    assert 'File "<cell 9>"' in runner.ask(code="1 / 0", id="c")["error"]
    # It never goes back: a number names one cell.
    assert runner.ask(code="1", id="d", execution_count=3)["execution_count"] == 10
    for wrong in (0, -1, 1.5, "7", 1 << 21):
        assert runner.ask(code="1", id=f"w{wrong}", execution_count=wrong)["exit_code"] == 2
