"""Standard input of user code: lines asked from whoever runs the cell."""

import builtins
import getpass
import io
import sys
from collections.abc import Callable
from typing import Any

_plain_input = builtins.input

Ask = Callable[[str, bool], str | None]
"""Takes the prompt and whether to hide what is typed; gives a line, or None at the end of input."""


class _Lines(io.RawIOBase):
    """Bytes of the lines that come."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._rest = b""
        self.prompt = ""
        self.password = False
        self.used = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.used = True
        if not self._rest:
            line = self._ask(self.prompt, self.password)
            if line is None:
                return 0
            self._rest = line.encode("utf-8", "surrogatepass")
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class Stdin:
    """Keeps `sys.stdin`, `input` and `getpass` working on lines from the host."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._lines, self._text = self._fresh()

    def _fresh(self) -> tuple[_Lines, io.TextIOWrapper]:
        lines = _Lines(self._ask)
        text = io.TextIOWrapper(io.BufferedReader(lines), "utf-8", "surrogatepass", newline=None)
        sys.stdin = sys.__stdin__ = text  # type: ignore[misc]
        return lines, text

    def restore(self) -> None:
        """Gives back the stream; what an earlier cell has not read is gone."""
        if self._lines.used or sys.stdin is not self._text or self._text.closed:
            self._lines, self._text = self._fresh()

    def install(self) -> None:
        """Routes `input` and `getpass` here, prompt and all."""

        def input_(prompt: object = "", /) -> str:
            """Read a string from standard input. The trailing newline is stripped."""
            if sys.stdin is not self._text:
                return _plain_input(prompt)
            return self._line(str(prompt), False)

        def getpass_(prompt: str = "Password: ", stream: object = None, **_: object) -> str:
            """Prompt for a password, which is not shown."""
            return self._line(str(prompt), True)

        for function, name in ((input_, "input"), (getpass_, "getpass")):
            function.__name__ = function.__qualname__ = name
        input_.__module__ = "builtins"
        getpass_.__module__ = "getpass"
        builtins.input = input_
        getpass.getpass = getpass_

    def _line(self, prompt: str, password: bool) -> str:
        lines = self._lines
        lines.prompt, lines.password = prompt, password
        try:
            line = self._text.readline()
        finally:
            lines.prompt, lines.password = "", False
        if not line:
            raise EOFError("EOF when reading a line")
        return line.removesuffix("\n")
