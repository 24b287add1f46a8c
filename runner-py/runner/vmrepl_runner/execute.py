"""Compiling and running cells in the user's namespace."""

import __future__

import ast
import asyncio
import builtins
import gc
import linecache
import sys
from asyncio import AbstractEventLoop, Task
from collections import deque
from contextlib import suppress
from sys import gettrace, settrace
from types import CodeType, FrameType, ModuleType
from typing import Any

from vmrepl_runner import limits
from vmrepl_runner.cells import Run
from vmrepl_runner.interrupts import Interrupts

_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_TREE = ast.PyCF_ONLY_AST | _AWAIT
_COROUTINE = 0x80  # inspect.CO_COROUTINE
_FUTURES = {name: getattr(__future__, name).compiler_flag for name in __future__.all_feature_names}
_STATEMENTS = frozenset(
    (
        *("assert", "async", "class", "def", "del", "for", "from", "global", "if", "import", "match"),
        *("pass", "raise", "return", "try:", "while", "with", "#", ""),
    )
)
"""With these words no expression begins, as a rule."""
_LOOP_MODULES = ("asyncio", "selectors")
_MISSING = object()


class Executor:
    """Owns the namespace, the counters, the history of values and the event loop."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self.module = ModuleType("__main__")
        self.space: dict[str, Any] = self.module.__dict__
        self._inputs: list[str] = [""]
        self._outputs: dict[int, Any] = {}
        self.space.update(__builtins__=builtins, In=self._inputs, Out=self._outputs)
        self._last: Any = _MISSING
        self._warm: dict[str, Any] = {}
        self.count = 0
        self._asides = 0
        self._futures = 0
        self._loop: AbstractEventLoop | None = None
        self._task: Task[Any] | None = None
        self._soft: KeyboardInterrupt | None = None
        self._sources: deque[tuple[str, int]] = deque()
        self._source_chars = 0

    def prepare(self, run: Run) -> None:
        """Numbers the cell and sets what it asks for around it."""
        if run.store:
            # The client's number, where it has one: the cells that lead here may have gaps between them.
            self.count = max(self.count + 1, run.number or 0)
        if not run.extended:
            return
        if run.filename is not None:
            self.space["__file__"] = run.filename
        if run.argv is not None:
            sys.argv = list(run.argv)
        elif run.filename is not None:
            sys.argv = [run.filename]
        if run.path is not None:
            sys.path[:] = run.path + [folder for folder in sys.path if folder not in run.path]

    def parse(self, run: Run) -> ast.Module | CodeType:
        """The cell's tree, or the code of a single expression; its source becomes what tracebacks and
        `inspect` see under its name."""
        code = run.code
        if run.filename is None:
            if run.store:
                run.filename = f"<cell {self.count}>"
                self._inputs.extend([""] * (self.count - len(self._inputs)))
                self._inputs.append(code)
            else:
                self._asides += 1
                run.filename = f"<{'warm-up' if run.warm else 'aside'} {self._asides}>"
        name = run.filename
        is_short = "\n" not in code and "\r" not in code
        lines = [code + "\n"] if is_short else _lines(code)
        linecache.cache[name] = len(code), None, lines, name
        self._sources.append((name, len(code)))
        self._source_chars += len(code)
        while self._source_chars > limits.SOURCE_CHARS:
            old, chars = self._sources.popleft()
            self._source_chars -= chars
            linecache.cache.pop(old, None)
        if is_short and "=" not in code and code.partition(" ")[0] not in _STATEMENTS:
            # The short way, which most cells at a prompt can go: no tree is made.
            with suppress(SyntaxError):
                single: CodeType = compile(code, name, "eval", _AWAIT | self._futures, True)
                return single
        tree: ast.Module = compile(code, name, "exec", _TREE | self._futures, True)
        body = tree.body
        if body and type(body[0]) is ast.ImportFrom and body[0].module == "__future__":
            for alias in body[0].names:
                self._futures |= _FUTURES.get(alias.name, 0)
        return tree

    def execute(self, tree: ast.Module | CodeType, run: Run) -> Any:
        """Runs the cell; the value of a last expression is the cell's."""
        if run.warm:
            return self._execute_warm(tree, run)
        return self._execute(tree, run, self.space)

    def _execute(self, tree: ast.Module | CodeType, run: Run, space: dict[str, Any]) -> Any:
        front, last = (None, tree) if type(tree) is CodeType else self._compiled(tree, run.filename or "")
        if (front is not None and front.co_flags & _COROUTINE) or (last is not None and last.co_flags & _COROUTINE):
            return self._await(_in_loop(front, last, space))
        # One line each: a debugger that steps out of the user's last one must not stop in ours.
        if front is not None:
            _, _ = eval(front, space), gettrace() and _end_stepping()
        if last is None:
            return None
        value, _ = eval(last, space), gettrace() and _end_stepping()
        return value

    def _compiled(self, tree: Any, name: str) -> tuple[CodeType | None, CodeType | None]:
        """What comes first, and the last expression."""
        flags, body = _AWAIT | self._futures, tree.body
        front = last = None
        if body and type(body[-1]) is ast.Expr:
            last = compile(ast.Expression(body.pop().value), name, "eval", flags, True)
        if body:
            front = compile(tree, name, "exec", flags, True)
        return front, last

    def _execute_warm(self, tree: ast.Module | CodeType, run: Run) -> Any:
        """Warm-up cells share a namespace of their own until one of them asks for the freeze."""
        futures, space = self._futures, self._warm
        space.update(__name__="__warm__", __builtins__=builtins)
        try:
            return self._execute(tree, run, space)
        finally:
            self._futures = futures
            linecache.cache.pop(run.filename or "", None)
            if run.freeze:
                space.clear()
                gc.collect()
                gc.freeze()

    def _await(self, coroutine: Any) -> Any:
        """Runs on one loop for the whole session: tasks that a cell leaves behind go on in later ones."""
        loop = self._loop
        if loop is None or loop.is_closed():
            loop = self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        task = self._task = loop.create_task(coroutine)
        self._soft = None
        self._interrupts.soften = self._soften
        try:
            return loop.run_until_complete(task)
        except asyncio.CancelledError as cancelled:
            if self._soft is None:
                raise
            raise self._soft.with_traceback(cancelled.__traceback__) from None
        finally:
            self._interrupts.soften = None
            self._task = None
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    loop.run_until_complete(task)

    def _soften(self, frame: FrameType) -> bool:
        """An interrupt while the loop waits cancels the cell's task; one in user code, or in what it called,
        raises there."""
        module = str(frame.f_globals.get("__name__", ""))
        if self._task is None or self._loop is None or module.partition(".")[0] not in _LOOP_MODULES:
            return False
        running = asyncio.current_task(self._loop)
        # A task that is about to be put back in line is the loop's: it would be lost.
        if running is not None and getattr(running.get_coro(), "cr_running", False):
            return False
        if self._soft is None:
            self._soft = self._interrupts.reason()
        self._loop.call_soon_threadsafe(self._task.cancel)
        return True

    def keep(self, value: Any) -> None:
        """Puts the value under `_` (unless the user has taken that name) and `Out`."""
        space = self.space
        if space.get("_", _MISSING) is self._last:
            if "__" in space:
                space["___"] = space["__"]
            if "_" in space:
                space["__"] = space["_"]
            space["_"] = self._last = value
        self._outputs[self.count] = value

    def tidy(self) -> None:
        """Each cell warns anew, and finds itself where `pickle` looks for `__main__`."""
        self.space.pop("__warningregistry__", None)
        if sys.getrecursionlimit() < limits.RECURSION:
            # Ours needs some, too.
            sys.setrecursionlimit(limits.RECURSION)
        modules = sys.modules
        if modules.get("__main__") is not self.module:
            modules["__main__"] = self.module
        if self.space.get("__builtins__") is not builtins:
            self.space["__builtins__"] = builtins

    def dismiss(self) -> None:
        """Forgets sources and the loop."""
        for name, _ in self._sources:
            linecache.cache.pop(name, None)
        if self._loop is not None:
            self._loop.close()
            asyncio.set_event_loop(None)


def _lines(code: str) -> list[str]:
    return (code if code.endswith("\n") else code + "\n").splitlines(True)


async def _in_loop(front: CodeType | None, last: CodeType | None, space: dict[str, Any]) -> Any:
    """A cell with `await` anywhere runs in the loop as a whole: all of it may make tasks."""
    value = None
    for code in (front, last):
        if code is not None:
            value = eval(code, space)
            if code.co_flags & _COROUTINE:
                value = await value
    return None if last is None else value


def _end_stepping() -> bool:
    trace = gettrace()
    bdb = sys.modules.get("bdb")
    if bdb is not None and isinstance(getattr(trace, "__self__", None), bdb.Bdb):
        settrace(None)
    return True
