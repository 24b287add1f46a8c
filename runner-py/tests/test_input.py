"""Standard input: what a cell reads is what was given, and its end is the end."""

import ast
import json
import struct

import pytest
from conftest import DONE, LINE, Speaker


def test_input(runner: Speaker) -> None:
    assert "EOFError: EOF when reading a line" in runner.ask(code="input()")["error"]
    assert runner.run("import sys; sys.stdin.read(), list(sys.stdin), sys.stdin.readline()") == ("", [], "")
    code = "import getpass, sys\n[input('name? '), getpass.getpass('word? '), sys.stdin.readline(), next(sys.stdin)]"
    runner.request(code=code, id="q", allow_stdin=True)
    for prompt, password, data in (("name? ", False, "ab"), ("word? ", True, "cd\n"), ("", False, "ef\ngh\n")):
        asked = runner.event("input_request")
        assert (asked["id"], asked["prompt"], asked["password"]) == ("q", prompt, password)
        runner.request(op="stdin", id="q", data=data)
    assert runner.wait("q")["result_repr"] == "['ab', 'cd', 'ef\\n', 'gh\\n']"


def test_input_to_its_end(runner: Speaker) -> None:
    runner.request(code="import sys; sys.stdin.read()", id="r", allow_stdin=True)
    for data in ("é\n", "two\n"):
        runner.event("input_request")
        runner.request(op="stdin", id="r", data=data)
    runner.event("input_request")
    runner.request(op="stdin", id="r", eof=True)
    assert runner.wait("r")["result_repr"] == "'é\\ntwo\\n'"
    runner.request(op="stdin", id="r", data="late\n")
    code = "import sys\n[input(), sys.stdin.read(), sys.stdin.read()]"
    runner.request(code=code, id="l", allow_stdin=True)
    runner.event("input_request")
    runner.request(op="stdin", id="l", data="first")
    runner.event("input_request")
    runner.request(op="stdin", id="l", data="no newline", eof=True)
    runner.event("input_request")
    runner.request(op="stdin", id="l", eof=True)
    assert runner.wait("l")["result_repr"] == "['first', 'no newline', '']"
    runner.request(code="input()", id="s", allow_stdin=True)
    runner.event("input_request")
    runner.request(op="interrupt", cell="s", id="i")
    assert runner.wait("s")["status"] == "interrupted"


READS = {
    "sys.stdin.read()": "one\ntwo",
    "sys.stdin.readlines()": ["one\n", "two"],
    "list(sys.stdin)": ["one\n", "two"],
    "[sys.stdin.readline() for _ in range(3)]": ["one\n", "two", ""],
    "sys.stdin.buffer.read()": b"one\ntwo",
    "[sys.stdin.read(5), sys.stdin.read(5)]": ["one\nt", "wo"],
    "[input(), input(), ended()]": ["one", "two", True],
    "[input(), sys.stdin.read(), ended()]": ["one", "two", True],
    "[input(), getpass.getpass(), ended()]": ["one", "two", True],
}


@pytest.mark.parametrize("code", READS)
def test_the_last_line_keeps_having_no_newline(runner: Speaker, code: str) -> None:
    runner.ask(
        code="import getpass, sys\ndef ended():\n    try: input()\n    except EOFError: return True\n    return False"
    )
    runner.request(code=code, id="r", allow_stdin=True)
    replies: list[dict[str, object]] = [{"data": "one"}, {"data": "two", "eof": True}]
    while True:
        kind, _, payload = runner.frame()
        if kind == LINE and b"input_request" in payload:
            # Whoever asks again after the end is told so again.
            runner.request(op="stdin", id="r", **(replies.pop(0) if replies else {"eof": True}))
        elif kind == DONE:
            break
    length = struct.unpack(">I", payload[:4])[0]
    answer = json.loads(payload[4 : 4 + length] + payload[4 + length :])
    assert answer["error"] is None, answer["error"]
    assert ast.literal_eval(answer["result_repr"]) == READS[code]
    assert not replies


def test_input_has_bounds(runner: Speaker) -> None:
    runner.request(code="len(input())", id="long", allow_stdin=True)
    runner.event("input_request")
    runner.request(op="stdin", id="long", data="x" * (12 << 20))
    assert runner.wait("long")["result_repr"] == str(12 << 20)
    wait = "try:\n    print('[started]', flush=True)\n    time.sleep(600)\nexcept KeyboardInterrupt: pass"
    runner.start(f"import sys, time\n{wait}\nsys.stdin.read()", "much", allow_stdin=True)
    for _ in range(6):
        runner.request(op="stdin", id="much", data="x" * (1 << 20))
    runner.request(op="interrupt", cell="much", id="i")
    assert runner.wait("i")["acted"]
    assert runner.wait("much")["error_value"].endswith("characters of input came before they were asked for")
