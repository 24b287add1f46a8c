"""Standard input of the user's code: lines asked from whoever runs the cell."""

import builtins
import getpass
import io
import queue
from collections.abc import Callable
from typing import Any

LINES_MAX = 64 << 10


class Stdin(io.TextIOBase):
    """`sys.stdin`: reads become `input_request` events, answered by `stdin` requests."""

    def __init__(self, ask: Callable[[str, bool], None]) -> None:
        self._ask = ask
        self._answers: queue.Queue[str | None] = queue.Queue(LINES_MAX)
        self._rest = ""
        self._ended = False
        self.allowed = False
        self.encoding_name = "utf-8"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.encoding_name

    def begin(self, allowed: bool) -> None:
        """A cell begins: nothing of an earlier one's input is left."""
        self.allowed = allowed
        self._rest = ""
        self._ended = not allowed
        while not self._answers.empty():
            self._answers.get_nowait()

    def feed(self, data: str | None) -> None:
        """Input from the host; None ends it."""
        try:
            self._answers.put_nowait(data)
        except queue.Full:
            return

    def readable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return 0

    def _more(self, prompt: str = "", password: bool = False) -> bool:
        if self._ended:
            return False
        if self._answers.empty():
            self._ask(prompt, password)
        data = self._answers.get()
        if data is None:
            self._ended = True
            return False
        self._rest += data
        return True

    def readline(self, size: int | None = -1, prompt: str = "", password: bool = False) -> str:  # type: ignore[override]
        while "\n" not in self._rest:
            if not self._more(prompt, password):
                break
        end = self._rest.find("\n") + 1 or len(self._rest)
        if size is not None and 0 <= size < end:
            end = size
        line, self._rest = self._rest[:end], self._rest[end:]
        return line

    def read(self, size: int | None = -1) -> str:
        whole = size is None or size < 0
        while (whole or len(self._rest) < (size or 0)) and self._more():
            pass
        end = len(self._rest) if whole else (size or 0)
        data, self._rest = self._rest[:end], self._rest[end:]
        return data

    def __next__(self) -> str:  # type: ignore[override]
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def install(self) -> None:
        """Routes `input` and `getpass` here, prompt and all."""

        def ask(prompt: Any, password: bool) -> str:
            line = self.readline(prompt=str(prompt), password=password)
            if not line:
                raise EOFError("this cell was given no input")
            return line.removesuffix("\n")

        def input_(prompt: object = "", /) -> str:
            return ask(prompt, False)

        def getpass_(prompt: str = "Password: ", stream: Any = None) -> str:
            return ask(prompt, True)

        input_.__name__ = input_.__qualname__ = "input"
        getpass_.__name__ = getpass_.__qualname__ = "getpass"
        builtins.input = input_
        getpass.getpass = getpass_
