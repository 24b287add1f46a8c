"""The dialect of `kernels/bash.sh`: command lines in, fields with a zero byte behind each out.

What names there are is told with the end of each cell, so questions about them are answered here.
"""

import os
import re
import signal
import subprocess
from hashlib import blake2b
from shlex import quote
from subprocess import DEVNULL, PIPE, Popen

from vmrepl_runner import limits
from vmrepl_runner.kernel import Message, die_with_us, outputs

_KERNEL = __file__.rpartition("/")[0] + "/kernels/bash.sh"
_BASH = ["/bin/bash", "--norc", "--noprofile", "--noediting", "-i"]
_FIELDS = {b"begun": 2, b"ended": 5, b"words": 3, b"told": 3, b"said": 2}
"""How many fields follow on each kind of message, with its own name."""

_VOLATILE = re.compile(
    r"_|__vmrepl.*|BASH\w*|COLUMNS|COMP_\w+|DIRSTACK|EPOCH\w+|FUNCNAME|GROUPS|HIST\w+|IFS|LINENO|LINES|OLDPWD"
    r"|OPT\w+|PIPESTATUS|PPID|PS\d|RANDOM|SECONDS|SHELLOPTS|SHLVL|SRANDOM|TERM|UID|EUID"
)
"""What the shell sets for itself."""
_VARIABLE = re.compile(r"^declare -([-\w]+) ([A-Za-z_]\w*)(?:=(.*))?$", re.M | re.S)
_VARIABLES = re.compile(r"^(?=declare -[-\w]+ [A-Za-z_]\w*(?:=|$))", re.M)
_FUNCTIONS = re.compile(r"^(?=\S+ \(\) \n\{ $)", re.M)
_OURS = re.compile(r"__vmrepl.*|exit")
_WORD = re.compile(r"[^\s;|&()<>\"'=:`]*$")
_NAME = re.compile(r"[\w.+-]*")
_OPEN = re.compile(r"unexpected (?:EOF|end of file)|here-document")
_KINDS = {"a": "array", "A": "map", "i": "integer", "n": "reference"}


class Bash:
    """Implements `kernel.Dialect`."""

    first_repeat_ms = 300
    """Meanwhile it reads what stands behind the cell: of a line that is interrupted the beginning is dropped."""
    repeat_ms = 50
    """A shell that waits for a program takes no notice of an interrupt that did not end the program, too."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._first: dict[str, str] | None = None
        """What there was before the first cell."""
        self._is_interrupted = False
        self._wanted = (0, "", "")
        """What is being completed."""

    def start(self) -> tuple["Popen[bytes]", int, int]:
        answers, theirs = os.pipe()
        lines, to = os.pipe()
        with outputs() as (out, error):
            process = Popen(
                _BASH,
                stdin=lines,
                stdout=out,
                # An interactive shell without a terminal has much to say about that.
                stderr=DEVNULL,
                pass_fds=[theirs, error],
                env={**os.environ, "PS1": "", "PS2": ""},
                preexec_fn=die_with_us,
                # Its process group is interrupted as a whole.
                start_new_session=True,
            )
        os.close(theirs)
        os.close(lines)
        first = f"__vmrepl_fd={theirs}; exec 2>&{error} {error}>&-; . {quote(_KERNEL)}; __vmrepl_end 0\n"
        os.write(to, first.encode())
        return process, to, answers

    def encode(self, number: int, op: str, fields: Message) -> bytes:
        if op in ("run", "warm"):
            self._is_interrupted = False
            code = f"eval {quote(fields['code'])}"
            code = f"({code})" if op == "warm" else code
            end = f"__vmrepl_end {number}\n"
            line = f"__vmrepl_begin {number}; __vmrepl_last; {code} </dev/null\n{end * 3}"
        elif op == "complete":
            self._wanted = _wanted(fields["code"])
            _, how, prefix = self._wanted
            line = f"__vmrepl_complete {number} {quote(how)} {quote(prefix)}\n"
        elif op == "describe":
            line = f"__vmrepl_describe {number} {quote(_name_at(fields['code'], fields['cursor']))}\n"
        else:
            seed = int.from_bytes(os.urandom(4), "little")
            line = f"{f'RANDOM={seed}; ' if op == 'reseed' else ''}__vmrepl_said {number}\n"
        return line.encode("utf-8", "surrogateescape")

    def decode(self, unread: bytes) -> tuple[Message | None, bytes]:
        kind = unread.partition(b"\0")[0]
        count = _FIELDS.get(kind)
        if count is None or unread.count(b"\0") < count:
            return None, unread
        *parts, rest = unread.split(b"\0", count)
        kind_, number, *told = (part.decode("utf-8", "surrogateescape") for part in parts)
        if kind_ == "begun":
            return {"begun": int(number)}, rest
        message: Message = {"id": int(number)}
        if kind_ == "ended":
            message |= self._ended(int(told[0]), told[1], told[2])
        elif kind_ == "words":
            message |= self._completed(told[0])
        elif kind_ == "told":
            message |= {"found": bool(told[0]), "data": {"text/plain": told[0].rstrip("\n")} if told[0] else {}}
        return message, rest

    def _ended(self, status: int, variables: str, functions: str) -> Message:
        before, now = self._names, _read(variables, functions)
        self._names = now
        if self._first is None:
            self._first = now
            return {"ready": True}
        return {
            "bound": [name for name in now if before.get(name) != now[name]],
            "deleted": [name for name in before if name not in now],
            "interrupted": self._is_interrupted and status != 0,
            **({"exit": status} if status else {}),
        }

    def _completed(self, words: str) -> Message:
        start, how, _ = self._wanted
        kind = "function" if how == "-c" else "instance"
        found = sorted(set(words.splitlines()))
        return {"matches": [{"text": word, "type": kind} for word in found], "length": start}

    def interrupt(self, process: "Popen[bytes]") -> bytes:
        self._is_interrupted = True
        os.killpg(process.pid, signal.SIGINT)
        return b""

    def known(self, op: str, fields: Message) -> Message | None:
        if op == "isComplete":
            return is_complete(fields["code"])
        if op == "variables":
            return {"variables": [_told(name, text) for name, text in self._own().items()]}
        if op == "run" and "\0" in fields["code"]:
            text = "a command line cannot hold a zero byte"
            return {"error": {"name": "Error", "value": text, "text": text}}
        if op == "describe":
            name = _name_at(fields["code"], fields["cursor"])
            text_of = self._names.get(name) or self._names.get(f"{name}()")
            if text_of is not None:
                return {"found": True, "data": {"text/plain": text_of.rstrip("\n")}}
        return None

    def _own(self) -> dict[str, str]:
        """What cells have made, or made different."""
        first = self._first or {}
        return {name: text for name, text in self._names.items() if first.get(name) != text}


def _read(variables: str, functions: str) -> dict[str, str]:
    """The declaration of each name, as the shell prints it."""
    names = {}
    for text in _VARIABLES.split(variables):
        found = _VARIABLE.match(text)
        if found is not None and not _VOLATILE.fullmatch(found[2]):
            names[found[2]] = text
    for text in _FUNCTIONS.split(functions):
        name = text.partition(" ")[0]
        if name and not _OURS.fullmatch(name):
            names[f"{name}()"] = text
    return names


def _told(name: str, text: str) -> Message:
    found = _VARIABLE.match(text)
    if found is None:
        kind, value = "function", " ".join(text.partition("{")[2].rpartition("}")[0].split())
    else:
        kind = next((word for sign, word in _KINDS.items() if sign in found[1]), "string")
        value = (found[3] or "").strip()
    digest = blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    value = value if len(value) <= limits.SHORT_CHARS else value[: limits.SHORT_CHARS - 1] + "…"
    return {"name": name, "type": kind, "repr": value, "digest": digest}


def _wanted(before: str) -> tuple[int, str, str]:
    """What is to be completed: how long the word is, how `compgen` looks for it, and its beginning."""
    found = _WORD.search(before)
    word = found[0] if found else ""
    if "$" in word:
        name = word.rpartition("$")[2].lstrip("{")
        return len(name), "-v", name
    ahead = before[: len(before) - len(word)].rstrip()
    is_command = not ahead or ahead[-1] in ";|&(\n" or ahead.endswith(("then", "do", "else"))
    return len(word), "-c" if is_command and "/" not in word else "-f", word


def _name_at(code: str, cursor: int) -> str:
    start = cursor
    while start > 0 and _NAME.fullmatch(code[start - 1]):
        start -= 1
    found = _NAME.match(code, start)
    return found[0] if found else ""


def is_complete(code: str) -> Message:
    """Asks a shell that only reads."""
    if code.endswith("\\") and not code.endswith("\\\\"):
        return {"status": "incomplete", "indent": ""}
    read = subprocess.run(
        ["/bin/bash", "--norc", "-n"],
        input=code.encode("utf-8", "surrogateescape"),
        stdout=DEVNULL,
        stderr=PIPE,
        env={"LC_ALL": "C"},
        check=False,
    )
    said = read.stderr.decode("utf-8", "replace")
    if _OPEN.search(said):
        return {"status": "incomplete", "indent": ""}
    return {"status": "invalid" if read.returncode else "complete", "indent": ""}
