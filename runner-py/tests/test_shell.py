"""Sessions in bash: cells, interrupts, questions and resumes, with the real shell."""

import json
import random
import time
from collections.abc import Iterator

import pytest
from conftest import RESUMED, RESUMED_ACK, Speaker


@pytest.fixture
def shell() -> Iterator[Speaker]:
    speaker = Speaker("bash")
    yield speaker
    speaker.close()


def said(shell: Speaker, code: str) -> str:
    answer = shell.ask(code=code)
    assert answer["error"] is None, answer["error"]
    return str(answer["stdout"] + answer["stderr"])


def test_names_the_folder_and_the_status_persist(shell: Speaker) -> None:
    first = shell.ask(code="x=5 y='a b' list=(1 2)\ndeclare -A map=([k]=v)\nf() { echo f $1; }", id="a")
    assert first["names"] == {"bound": ["f()", "list", "map", "x", "y"], "deleted": []}
    assert said(shell, 'f $x; echo ${map[k]} ${list[1]} "$y"') == "f 5\nv 2 a b\n"
    assert shell.ask(code="unset x", id="b")["names"] == {"bound": [], "deleted": ["x"]}
    assert said(shell, "cd /usr") == ""
    assert said(shell, "pwd") == "/usr\n"
    answer = shell.ask(code="(exit 3)", id="c")
    assert (answer["exit_code"], answer["status"], answer["error"]) == (3, "error", None)
    assert said(shell, "echo $?") == "3\n"
    assert said(shell, "cat <<END\none\nEND\necho 'a\nb'") == "one\na\nb\n"
    assert said(shell, 'cat; read line; echo "<$line>"') == "<>\n"


@pytest.mark.parametrize(
    ("code", "exit_code", "text"),
    [
        ("echo 'a", 2, "unexpected EOF"),
        ("set -u; echo $nope; echo on", 1, "nope: unbound variable"),
        ("${x?none}; echo on", 1, "x: none"),
        ("nope-nope", 127, "command not found"),
        ("exit 7; echo on", 7, ""),
        ("f() { exit 8; }; f; echo on", 8, ""),
        ("kill -INT $$; echo on", 130, ""),
    ],
)
def test_what_ends_a_cell_leaves_the_session(shell: Speaker, code: str, exit_code: int, text: str) -> None:
    said(shell, "kept=1")
    answer = shell.ask(code=code, id="a")
    assert answer["exit_code"] == exit_code
    assert text in answer["stderr"]
    assert "on\n" not in answer["stdout"]
    assert said(shell, "set +u; echo $kept; echo error >&2") == "1\nerror\n"


def test_a_zero_byte_is_refused(shell: Speaker) -> None:
    assert "zero byte" in shell.ask(code="echo \0")["error"]


@pytest.mark.parametrize("language", ["bash", "javascript"])
def test_interrupts_at_any_moment(language: str) -> None:
    draw = random.Random(7)
    codes = {
        "bash": ["while :; do :; done", "sleep 100 | cat", "while :; do echo hi; done", "while :; do /bin/true; done"],
        "javascript": [
            "for (;;) ;",
            "await new Promise(() => {})",
            "for (;;) console.log('hi')",
            "for (;;) [2, 1].sort()",
        ],
    }[language]
    fine = {"bash": "true", "javascript": "1"}[language]
    speaker = Speaker(language)
    try:
        for number in range(40):
            timeout_ms = draw.choice((1, 2, 3, 5, 10, 20))
            answer = speaker.ask(code=draw.choice(codes), id=f"a{number}", timeout_ms=timeout_ms)
            assert (answer["status"], answer["error_name"]) == ("timeout", "CellTimeout")
            answer = speaker.ask(code=fine, id=f"b{number}")
            assert (answer["status"], answer["error"]) == ("ok", None)
    finally:
        speaker.close()


def test_questions(shell: Speaker) -> None:
    said(shell, "names=(a b); greet() { echo hi; }; text=$'two\\nlines'")
    found = {entry["name"]: entry for entry in shell.ask(op="variables", digest=True)["variables"]}
    assert {name: entry["type"] for name, entry in found.items()} == {
        "names": "array",
        "greet()": "function",
        "text": "string",
    }
    before = found["names"]["digest"]
    said(shell, "names+=(c)")
    found = {entry["name"]: entry for entry in shell.ask(op="variables", digest=True)["variables"]}
    assert found["names"]["digest"] != before
    told = shell.ask(op="complete", code="cat /etc/passw")
    assert {"text": "/etc/passwd", "type": "instance"} in told["matches"]
    assert (told["cursor_start"], told["cursor_end"]) == (4, 14)
    assert [match["text"] for match in shell.ask(op="complete", code="echo ${nam")["matches"]] == ["names"]
    assert {"text": "greet", "type": "function"} in shell.ask(op="complete", code="true; gree")["matches"]
    assert "echo hi" in shell.ask(op="inspect", code="greet")["data"]["text/plain"]
    assert "Change the shell" in shell.ask(op="inspect", code="cd")["data"]["text/plain"]
    assert not shell.ask(op="inspect", code="nope-nope")["found"]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("", "complete"),
        ("if true", "incomplete"),
        ("x='a", "incomplete"),
        ("cat <<E", "incomplete"),
        ("echo \\", "incomplete"),
        ("fi", "invalid"),
        ("for x in 1; do\necho\ndone", "complete"),
    ],
)
def test_whether_a_cell_is_whole(shell: Speaker, code: str, status: str) -> None:
    assert shell.ask(op="is_complete", code=code)["status"] == status


def test_warm_cells_leave_no_names(shell: Speaker) -> None:
    assert shell.ask(op="warm", code="x=1; cd /usr", id="a")["status"] == "ok"
    assert shell.ask(op="warm", code="true", id="b", freeze=True)["status"] == "ok"
    assert shell.ask(op="variables")["variables"] == []


def test_a_copy_draws_other_numbers(shell: Speaker) -> None:
    said(shell, "RANDOM=1")
    first = said(shell, "echo $RANDOM $RANDOM $RANDOM")
    said(shell, "RANDOM=1")
    assert said(shell, "echo $RANDOM $RANDOM $RANDOM") == first
    said(shell, "RANDOM=1")
    shell.send(RESUMED, json.dumps({"generation": 2, "rng": "keep"}).encode(), 0)
    assert shell.until(RESUMED_ACK) == {"generation": 2}
    assert said(shell, "echo $RANDOM $RANDOM $RANDOM") != first


@pytest.mark.parametrize(("code", "end"), [("kill -9 $$", -9), ("exec true", 1), ("set -e; false", 1)])
def test_without_its_shell_the_runner_ends(shell: Speaker, code: str, end: int) -> None:
    shell.request(code=code, id="a")
    with pytest.raises(EOFError):
        shell.wait("a")
    assert shell.process.wait(10) == end


def test_a_background_job_outlives_its_cell(shell: Speaker) -> None:
    said(shell, "sleep 0.3 && echo late &")
    time.sleep(0.6)
    assert "late" in said(shell, "wait; true")
