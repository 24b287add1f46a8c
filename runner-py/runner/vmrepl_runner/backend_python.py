"""The Python backend: one namespace, cells compiled and run in it.

A backend has one small face: `run`, `warm`, and the questions of `inspecting`. Nothing outside may assume
that code is Python.
"""

import __future__

import ast
import asyncio
import gc
import inspect
import linecache
import os
import sys
import traceback
import types
from collections.abc import Callable, Coroutine
from typing import Any

from vmrepl_runner.interrupts import Interrupts
from vmrepl_runner.names import Names, names_of
from vmrepl_runner.results import bundle_of, open_figures, text_of
from vmrepl_runner.tables import may_hold_tables, table_of

TABLE_MIME = "application/vnd.vmrepl.table+json"
_HERE = os.path.dirname(os.path.abspath(__file__))
_FUTURES = 0
for _name in __future__.all_feature_names:
    _FUTURES |= getattr(__future__, _name).compiler_flag


class Outcome:
    """What a cell came to."""

    __slots__ = ("error", "exit_code", "names", "result", "result_repr", "status", "tables", "value")

    def __init__(self) -> None:
        self.exit_code = 0
        self.status = "ok"
        self.result_repr: str | None = None
        self.result: dict[str, Any] | None = None
        self.error: tuple[str, str, str] | None = None
        self.tables: list[dict[str, Any]] = []
        self.names: Names | None = None
        self.value: Any = None


class PythonBackend:
    """Owns the user's namespace."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flags = 0
        self._warm: dict[str, Any] = {}
        self.count = 0
        main = types.ModuleType("__main__")
        main.__dict__["__builtins__"] = sys.modules["builtins"]
        sys.modules["__main__"] = main
        self.namespace: dict[str, Any] = main.__dict__
        self.namespace["Out"] = {}

    def run(self, request: dict[str, Any], emit: Callable[[str, dict[str, Any]], None] | None) -> Outcome:
        """Runs one cell. `emit` takes events (type, fields) when the client wants them."""
        outcome = Outcome()
        extended = emit is not None
        code = request["code"]
        self.count += 1
        filename = request.get("filename") or f"<cell {self.count}>"
        timeout_ms = request.get("timeout_ms")
        try:
            tree = self._interrupts.run(lambda: self._parse(code, filename), timeout_ms)
            if extended:
                outcome.names = names_of(tree)
            before = set(self.namespace) if outcome.names is not None and outcome.names.star else None
            value = self._interrupts.run(lambda: self._execute(tree, filename), timeout_ms)
            if before is not None and outcome.names is not None:
                outcome.names.bound.update(dict.fromkeys(n for n in self.namespace if n not in before))
            if value is not None:
                self._interrupts.run(lambda: self._show(value, outcome, extended), timeout_ms)
                outcome.value = value
            if request.get("show_tables"):
                with_meta = bool(request.get("show_table_meta"))
                self._interrupts.run(lambda: self._tables(tree, outcome, with_meta), timeout_ms)
        except SystemExit as leave:
            outcome.exit_code = _exit_code(leave.code)
            outcome.status = "ok" if outcome.exit_code == 0 else "error"
        except KeyboardInterrupt as error:
            outcome.exit_code = 1
            outcome.status = "timeout" if self._interrupts.timed_out else "interrupted"
            outcome.error = self._describe(error)
        except BaseException as error:
            outcome.exit_code = 1
            outcome.status = "error"
            outcome.error = self._describe(error)
        if value_kept(outcome) and request.get("store", True) is not False:
            self._keep(outcome.value)
        return outcome

    def _parse(self, code: str, filename: str) -> ast.Module:
        lines = code.splitlines(keepends=True)
        linecache.cache[filename] = (len(code), None, lines, filename)
        flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | self._flags
        tree = compile(code, filename, "exec", flags, dont_inherit=True)
        assert isinstance(tree, ast.Module)
        return tree

    def _execute(self, tree: ast.Module, filename: str) -> Any:
        """Runs all but a last expression, then that; its value is the cell's."""
        body = tree.body
        last = body[-1] if body and isinstance(body[-1], ast.Expr) else None
        front = tree if last is None else ast.Module(body[:-1], tree.type_ignores)
        parts: list[types.CodeType] = []
        if front.body:
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | self._flags
            parts.append(compile(front, filename, "exec", flags, dont_inherit=True))
            self._flags |= parts[0].co_flags & _FUTURES
        if last is not None:
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | self._flags
            parts.append(compile(ast.Expression(last.value), filename, "eval", flags, dont_inherit=True))
        if any(part.co_flags & inspect.CO_COROUTINE for part in parts):
            value = self._await(self._in_loop(parts))
        else:
            value = None
            for part in parts:
                value = eval(part, self.namespace)
        return None if last is None else value

    async def _in_loop(self, parts: list[types.CodeType]) -> Any:
        value = None
        for part in parts:
            value = eval(part, self.namespace)
            if part.co_flags & inspect.CO_COROUTINE:
                value = await value
        return value

    def _await(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs on one loop for the whole session, so that tasks live on between cells."""
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()
            raise

    def _show(self, value: Any, outcome: Outcome, extended: bool) -> None:
        outcome.result_repr = text_of(value)
        if not extended:
            return
        outcome.result = bundle_of(value, outcome.result_repr)
        table = table_of("_", value, False) if may_hold_tables() else None
        if table is not None:
            outcome.result["data"][TABLE_MIME] = table

    def _tables(self, tree: ast.Module, outcome: Outcome, with_meta: bool) -> None:
        if not may_hold_tables():
            return
        names = outcome.names or names_of(tree)
        for name in names.bound:
            table = table_of(name, self.namespace.get(name), with_meta)
            if table is not None:
                outcome.tables.append(table)

    def figures(self) -> list[dict[str, Any]]:
        """Open figures as bundles."""
        return open_figures()

    def _keep(self, value: Any) -> None:
        space = self.namespace
        space["___"], space["__"], space["_"] = space.get("__"), space.get("_"), value
        kept = space.get("Out")
        if isinstance(kept, dict):
            kept[self.count] = value

    def _describe(self, error: BaseException) -> tuple[str, str, str]:
        """Name, text and traceback: the user's frames, none of ours."""
        name = type(error).__name__
        try:
            value = str(error)
        except Exception:
            value = f"<{name} whose text cannot be made>"
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
            trace = trace.tb_next
        try:
            told = traceback.TracebackException(type(error), error, trace, compact=True)
            text = "".join(told.format())
        except Exception as failure:
            text = f"{name}: {value}\n(the traceback cannot be made: {type(failure).__name__})\n"
        error.__traceback__ = trace
        self.namespace.setdefault("__builtins__", sys.modules["builtins"])
        return name, value, text

    def warm(self, code: str, freeze: bool) -> tuple[str, str, str] | None:
        """Runs code in a namespace of warm-ups, which `freeze` throws away. Returns what it raised."""
        space = self._warm
        space.update(__name__="__warm__", __builtins__=sys.modules["builtins"])
        error = None
        try:
            tree = ast.parse(code, "<warm-up>")
            exec(compile(tree, "<warm-up>", "exec", dont_inherit=True), space)
        except BaseException as raised:
            error = self._describe(raised)
        if freeze:
            space.clear()
            gc.collect()
            gc.freeze()
        return error

    def forget_rehearsal(self) -> None:
        """Leaves the namespace as new."""
        self.count = 0
        self._flags = 0
        builtins = self.namespace["__builtins__"]
        self.namespace.clear()
        self.namespace.update(__name__="__main__", __builtins__=builtins, __doc__=None, Out={})
        linecache.clearcache()


def value_kept(outcome: Outcome) -> bool:
    """Whether the cell's value goes under `_`."""
    return outcome.value is not None and outcome.error is None


def _exit_code(code: Any) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if not 0 <= code <= 255 else code
    print(code, file=sys.stderr)
    return 1
