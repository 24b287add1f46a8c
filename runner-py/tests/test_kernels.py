"""Sessions in JavaScript: cells, interrupts, questions and resumes, with the real Node."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RESUMED, RESUMED_ACK, Speaker


@pytest.fixture
def node() -> Iterator[Speaker]:
    speaker = Speaker("javascript")
    yield speaker
    speaker.close()


def value(node: Speaker, code: str) -> str | None:
    answer = node.ask(code=code)
    assert answer["error"] is None, answer["error"]
    text = answer["result_repr"]
    return None if text is None else str(text)


def start(node: Speaker, code: str, id: str) -> None:
    node.request(code=f"console.log('[started]'); {code}", id=id)
    assert node.read(node.out, "[started]\n")


def test_names_persist_and_are_told(node: Speaker) -> None:
    first = node.ask(code="let x = 5; const y = [1, 2]; var z; class A {}; function f() { return x }", id="a")
    assert first["names"] == {"bound": ["A", "f", "x", "y", "z"], "deleted": []}
    assert node.ask(code="x += 1", id="b")["names"]["bound"] == ["x"]
    assert value(node, "f()") == "6"
    assert value(node, "_ * 2") == "12"
    assert node.ask(code="delete globalThis.f", id="c")["names"] == {"bound": [], "deleted": []}
    node.ask(code="free = 1")
    assert node.ask(code="delete globalThis.free", id="d")["names"]["deleted"] == ["free"]
    assert value(node, "{ a: [x, 'é😀'] }") == "{ a: [ 6, 'é😀' ] }"
    assert value(node, "let later = await new Promise((done) => setTimeout(() => done(7), 5)); later") == "7"
    assert value(node, "undefined") is None


def test_output_comes_before_the_answer(node: Speaker) -> None:
    answer = node.ask(code="console.log('out'); console.error('err'); process.stdout.write('x'.repeat(30000)); 1")
    assert (answer["stdout"], answer["stderr"]) == ("out\n" + "x" * 30000, "err\n")
    assert answer["result_repr"] == "1"


@pytest.mark.parametrize(
    ("code", "name", "text"),
    [
        (
            "function f() { throw new TypeError('bad') }\nf()",
            "TypeError",
            "at f (<cell 1>:1:22)\n    at <cell 1>:2:1\n",
        ),
        ("throw 5", "Error", "Uncaught 5\n"),
        ("let a = ", "SyntaxError", "<cell 1>:1"),
        ("await Promise.reject(new RangeError('far'))", "RangeError", "Uncaught RangeError: far"),
        ("setTimeout(() => { throw new Error('late') }, 5); await new Promise(() => {})", "Error", "late"),
        ("throw { get stack() { throw 1 } }", "Error", "Uncaught"),
    ],
)
def test_what_is_thrown_is_told(node: Speaker, code: str, name: str, text: str) -> None:
    answer = node.ask(code=code, id="a")
    assert (answer["exit_code"], answer["status"], answer["error_name"]) == (1, "error", name)
    assert text in answer["error"]
    assert "node:" not in answer["error"]
    assert value(node, "1 + 1") == "2"


def test_what_nobody_waits_for_is_told_by_whoever_runs_then(node: Speaker) -> None:
    assert value(node, "setTimeout(() => { throw new Error('late') }, 300); 1") == "1"
    time.sleep(0.6)
    assert "Uncaught Error: late" in node.ask(code="0")["stderr"]
    answer = node.ask(code="setTimeout(() => { throw new Error('soon') }, 5); await new Promise(() => {})", id="a")
    assert (answer["status"], answer["error_value"]) == ("error", "soon")


def test_leaving_leaves_the_cell_alone(node: Speaker) -> None:
    node.ask(code="let x = 1")
    answer = node.ask(code="x = 2; process.exit(3); x = 4", id="a")
    assert (answer["exit_code"], answer["status"], answer["error"]) == (3, "error", None)
    assert node.ask(code="process.exit()", id="b")["status"] == "ok"
    assert value(node, "x") == "2"


@pytest.mark.parametrize("code", ["while (true) {}", "await new Promise(() => {})", "for (;;) try { f() } catch {}"])
def test_interrupts_and_timeouts_end_the_cell_and_keep_the_names(node: Speaker, code: str) -> None:
    node.ask(code="let x = 1; const f = () => 0")
    answer = node.ask(code=code, id="a", timeout_ms=200)
    assert (answer["status"], answer["error_name"]) == ("timeout", "CellTimeout")
    start(node, code, "b")
    began = time.monotonic()
    assert node.ask(op="interrupt", cell="b")["acted"]
    answer = node.wait("b")
    assert (answer["status"], answer["error_name"]) == ("interrupted", "KeyboardInterrupt")
    assert time.monotonic() - began < 5
    assert value(node, "x") == "1"


def test_an_interrupt_meets_a_request_on_its_way(node: Speaker) -> None:
    # The kernel gets megabytes and then a loop: wherever it is met, it answers and goes on.
    code = f"/* {'x' * (4 << 20)} */ for (;;) ;"
    for number, patience in enumerate((1, 5, 20, 60, 200)):
        assert node.ask(code=code, id=f"a{number}", timeout_ms=patience)["status"] == "timeout"
        assert value(node, "1") == "1"


def test_questions(node: Speaker) -> None:
    node.ask(code="let many = [3, 1]; const name = 'é'; function twice(n) { return n * 2 }; class A {}")
    found = {entry["name"]: entry for entry in node.ask(op="variables", digest=True)["variables"]}
    assert {name: entry["type"] for name, entry in found.items()} == {
        "many": "Array",
        "name": "string",
        "twice": "function",
        "A": "class",
    }
    assert found["many"]["repr"] == "[ 3, 1 ]"
    before = found["many"]["digest"]
    node.ask(code="many.push(4)")
    found = {entry["name"]: entry for entry in node.ask(op="variables", digest=True)["variables"]}
    assert found["many"]["digest"] != before
    told = node.ask(op="complete", code="'😀'; many.forE", cursor=14)
    assert [match["text"] for match in told["matches"]] == ["forEach"]
    assert (told["cursor_start"], told["cursor_end"]) == (10, 14)
    assert {"text": "twice", "type": "function"} in node.ask(op="complete", code="tw")["matches"]
    told = node.ask(op="inspect", code="'😀' + twice(1)", cursor=9)
    assert told["found"]
    assert "return n * 2" in told["data"]["text/plain"]
    assert not node.ask(op="inspect", code="nothing")["found"]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("", "complete"),
        ("1 +", "incomplete"),
        ("if (x) {", "incomplete"),
        ("`a", "incomplete"),
        ("await x", "complete"),
        ("{ a: 1 }", "complete"),
        ("foo)", "invalid"),
    ],
)
def test_whether_a_cell_is_whole(node: Speaker, code: str, status: str) -> None:
    assert node.ask(op="is_complete", code=code)["status"] == status


def test_a_busy_kernel_says_so(node: Speaker) -> None:
    start(node, "for (;;) ;", "a")
    assert node.ask(op="is_complete", code="1")["status"] == "unknown"
    told = node.ask(op="variables")
    assert told["busy"] and told["variables"] == []
    node.send(RESUMED, json.dumps({"generation": 2, "rng": "keep"}).encode(), 0)
    assert node.until(RESUMED_ACK) == {"generation": 2}
    assert node.ask(op="interrupt", cell="a")["acted"]
    assert node.wait("a")["status"] == "interrupted"
    assert value(node, "1") == "1"


def test_a_kernel_that_a_timer_keeps_busy_is_not_waited_for(node: Speaker) -> None:
    code = "setTimeout(() => { const until = Date.now() + 6000; while (Date.now() < until) ; }, 1); 1"
    assert value(node, code) == "1"
    time.sleep(0.3)
    began = time.monotonic()
    assert node.ask(op="is_complete", code="1")["status"] == "unknown"
    node.send(RESUMED, json.dumps({"generation": 2, "rng": "keep"}).encode(), 0)
    assert node.until(RESUMED_ACK) == {"generation": 2}
    assert time.monotonic() - began < 5
    assert value(node, "2") == "2"


def test_warm_cells_leave_no_names(node: Speaker) -> None:
    assert node.ask(op="warm", code="let x = await 1; var y = 2;", id="a")["status"] == "ok"
    assert node.ask(op="warm", code="'last'", id="b", freeze=True)["status"] == "ok"
    assert node.ask(op="variables")["variables"] == []
    assert node.ask(code="1", id="c")["execution_count"] == 1


def test_numbers_are_drawn_and_a_resume_is_acknowledged(node: Speaker) -> None:
    # That two copies differ is seen where there are two: in the tests on machines.
    node.send(RESUMED, json.dumps({"generation": 2, "rng": "keep"}).encode(), 0)
    assert node.until(RESUMED_ACK) == {"generation": 2}
    node.ask(code="const c = require('crypto')")
    sizes = value(node, "[c.randomUUID(), c.randomBytes(16).toString('hex'), crypto.randomUUID()].map((s) => s.length)")
    assert sizes == "[ 36, 32, 36 ]"
    drawn = value(node, "Array.from({ length: 2000 }, Math.random).map((n) => n * 4 | 0).reduce((a, n) => a + n, 0)")
    assert drawn is not None and 2700 < int(drawn) < 3300
    assert value(node, "new Set(Array.from({ length: 300 }, () => c.randomInt(3, 6))).size") == "3"


def test_without_its_kernel_the_runner_ends(node: Speaker) -> None:
    node.request(code="process.kill(process.pid, 'SIGKILL')", id="a")
    with pytest.raises(EOFError):
        node.wait("a")
    assert node.process.wait(10) == -9


def test_a_kernel_that_leaves_is_followed(node: Speaker) -> None:
    node.request(code="process.reallyExit(3)", id="a")
    with pytest.raises(EOFError):
        node.wait("a")
    assert node.process.wait(10) == 1
    assert "the interpreter has ended" in node.drain(node.err)


def test_a_killed_runner_takes_its_kernel_along(node: Speaker) -> None:
    start(node, "for (;;) ;", "a")
    kernel = int(Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children").read_text().split()[0])
    node.process.kill()
    node.process.wait()
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{kernel}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.02)
    pytest.fail("the kernel lives on")
