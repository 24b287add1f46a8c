"""The Python backend: one namespace, which is `__main__`, and the questions about it."""

import builtins
import sys
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any

from vmrepl_runner import complete, describe, limits, rich, tables, variables
from vmrepl_runner.cells import Outcome, Question, Run
from vmrepl_runner.completeness import is_complete
from vmrepl_runner.debug import breakpoint_here
from vmrepl_runner.execute import Executor
from vmrepl_runner.interrupts import status_of
from vmrepl_runner.names import Names, names_of
from vmrepl_runner.stage import Stage
from vmrepl_runner.text import cut
from vmrepl_runner.tracebacks import told, trimmed

TABLE_MIME = "application/vnd.vmrepl.table+json"


class PythonBackend:
    """Implements `backend.Backend`."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._executor = Executor(stage.interrupts)
        self._shown: set[int] = set()
        self._ask: dict[str, Callable[[dict[str, Any], bool], dict[str, Any]]] = {
            "complete": self._complete,
            "inspect": self._inspect,
            "variables": self._variables,
            "is_complete": lambda request, _: is_complete(request["code"]),
        }

    def install(self) -> None:
        sys.modules["__main__"] = self._executor.module
        builtins.display = self.display  # type: ignore[attr-defined]
        sys.breakpointhook = breakpoint_here

    def run(self, run: Run, outcome: Outcome) -> None:
        executor = self._executor
        executor.prepare(run)
        outcome.count = executor.count
        tree = executor.parse(run)
        names: Names | None = None
        # An expression alone binds nothing.
        if (run.extended or run.show_tables) and type(tree) is not CodeType:
            names = names_of(tree, run.code)
            outcome.bound, outcome.deleted = sorted(names.bound), sorted(names.deleted)
        before = set(executor.space) if names is not None and names.star else None
        try:
            value = executor.execute(tree, run)
        finally:
            if before is not None and names is not None:
                names.bound |= executor.space.keys() - before - names.deleted
                outcome.bound = sorted(names.bound)
        if value is not None:
            self._show(value, run, outcome)
        if run.show_tables and names is not None:
            self._tables(outcome, run.show_table_meta)

    def _show(self, value: Any, run: Run, outcome: Outcome) -> None:
        outcome.result_repr = rich.text_of(value)
        if run.extended:
            outcome.result = rich.bundle_of(value, outcome.result_repr)
            if tables.is_table(value):
                entry = tables.entry("_", value, run.show_table_meta)
                if entry is not None:
                    outcome.result["data"][TABLE_MIME] = entry
            self._shown.add(id(value))
        if run.store:
            self._executor.keep(value)

    def _tables(self, outcome: Outcome, with_meta: bool) -> None:
        space = self._executor.space
        for name in outcome.bound:
            value = space.get(name)
            if value is not None and tables.is_table(value):
                if len(outcome.tables) == limits.TABLES:
                    rich.note(f"only the first {limits.TABLES} tables are told")
                    return
                entry = tables.entry(name, value, with_meta)
                if entry is not None:
                    outcome.tables.append(entry)

    def explain(self, run: Run, outcome: Outcome, error: BaseException) -> None:
        if isinstance(error, SystemExit):
            outcome.exit_code = _exit_code(error.code)
            outcome.status = "ok" if outcome.exit_code == 0 else "error"
            return
        outcome.exit_code = 1
        outcome.status = status_of(error)
        kind = type(error)
        outcome.error_name = cut(kind.__name__, limits.NAME_CHARS)
        # Before the traceback, whose maker swallows interrupts of a `__str__` that hangs.
        try:
            outcome.error_value = cut(str(error), limits.ERROR_CHARS)
        except Exception:
            outcome.error_value = f"<{outcome.error_name}: its text cannot be made>"
        error.__traceback__ = trimmed(error.__traceback__)
        outcome.error = told(error, run.code, run.filename)
        if run.store:
            # For `pdb.pm()`.
            sys.last_type, sys.last_value, sys.last_traceback = kind, error, error.__traceback__

    def close(self, run: Run, outcome: Outcome) -> None:
        if outcome.status in ("ok", "error") and not run.warm:
            for bundle in rich.open_figures(self._shown):
                self._put(bundle)
        self._shown.clear()

    def display(self, *values: Any, metadata: dict[str, Any] | None = None, **_: Any) -> None:
        """Shows values in all their forms, as a cell's last expression would be."""
        for value in values:
            text = rich.text_of(value)
            if not self._stage.is_rich:
                print(text)
                continue
            bundle = rich.bundle_of(value, text)
            if isinstance(metadata, dict):
                bundle["metadata"].update(rich.checked_metadata(metadata))
            self._shown.add(id(value))
            self._put(bundle)

    def _put(self, bundle: dict[str, Any]) -> None:
        if not self._stage.display(bundle):
            rich.note("a display was left out: the cell's displays are too large together")

    def answer(self, question: Question, live: bool) -> dict[str, Any]:
        return self._ask[question.op](question.request, live)

    def _complete(self, request: dict[str, Any], live: bool) -> dict[str, Any]:
        return complete.complete(request["code"], request["cursor"], self._executor.space, live)

    def _inspect(self, request: dict[str, Any], live: bool) -> dict[str, Any]:
        detail = 1 if request.get("detail") == 1 else 0
        return describe.describe(request["code"], request["cursor"], detail, self._executor.space, live)

    def _variables(self, request: dict[str, Any], live: bool) -> dict[str, Any]:
        digest = live and request.get("digest") is True
        return {"variables": variables.listed(self._executor.space, live, digest)}

    def tidy(self) -> None:
        self._executor.tidy()

    def values(self) -> Iterable[object]:
        return list(self._executor.space.values())

    def resumed(self) -> None: ...

    def dismiss(self) -> None:
        self._executor.dismiss()


def _exit_code(code: Any) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return int(code) if -(1 << 31) <= code < 1 << 31 else code & 0xFF
    print(code, file=sys.stderr)
    return 1
