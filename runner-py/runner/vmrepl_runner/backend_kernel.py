"""The backend of languages other than Python: a kernel has the names, and answers for them."""

from collections.abc import Callable, Iterable
from typing import Any

from vmrepl_runner import limits
from vmrepl_runner.cells import Outcome, Question, Run
from vmrepl_runner.dialect_bash import Bash
from vmrepl_runner.dialect_node import Node
from vmrepl_runner.interrupts import CellStopped, Interrupts, status_of
from vmrepl_runner.kernel import Dialect, Kernel, Message
from vmrepl_runner.text import cut

DIALECTS: dict[str, Callable[[], Dialect]] = {"javascript": Node, "bash": Bash}

_UNKNOWN: dict[str, dict[str, Any]] = {
    "complete": {"matches": []},
    "inspect": {"found": False, "data": {}},
    "variables": {"variables": []},
    "is_complete": {"status": "unknown", "indent": ""},
}
"""What is said while the kernel is busy: nothing of it is known without running it."""


class Failed(Exception):
    """What the user's code threw, as the kernel tells it."""

    def __init__(self, answer: Message) -> None:
        super().__init__()
        self.answer = answer


class KernelBackend:
    """Implements `backend.Backend`."""

    def __init__(self, language: str, interrupts: Interrupts) -> None:
        self._kernel = Kernel(DIALECTS[language](), interrupts)
        self._count = 0

    def install(self) -> None: ...

    def run(self, run: Run, outcome: Outcome) -> None:
        if run.store:
            # The client's number, where it has one, as with Python.
            self._count = max(self._count + 1, run.number or 0)
        outcome.count = self._count
        name = run.filename or f"<{'cell' if run.store else 'warm-up' if run.warm else 'aside'} {self._count}>"
        if run.warm:
            self._told(self._kernel.ask("warm", code=run.code, name=name), outcome)
            if run.freeze:
                self._kernel.ask("collect")
            return
        argv = run.argv if run.argv is not None else None if run.filename is None else [run.filename]
        answer = self._kernel.ask("run", code=run.code, name=name, keep=run.store, argv=argv)
        self._told(answer, outcome)

    def _told(self, answer: Message, outcome: Outcome) -> None:
        outcome.bound = sorted(answer.get("bound", ()))
        outcome.deleted = sorted(answer.get("deleted", ()))
        if "result" in answer:
            outcome.result_repr = cut(answer["result"], limits.REPR_CHARS)
            outcome.result = {"data": {"text/plain": outcome.result_repr}, "metadata": {}}
        if not answer.keys().isdisjoint(("exit", "error", "failed")):
            raise Failed(answer)

    def explain(self, run: Run, outcome: Outcome, error: BaseException) -> None:
        outcome.exit_code = 1
        outcome.status = status_of(error)
        answer = error.answer if isinstance(error, Failed) else {}
        if "exit" in answer:
            outcome.exit_code = answer["exit"]
            outcome.status = "ok" if outcome.exit_code == 0 else "error"
            return
        told = answer.get("error") or _told_here(error, answer.get("failed"))
        outcome.error_name = cut(told["name"], limits.NAME_CHARS)
        outcome.error_value = cut(told["value"], limits.ERROR_CHARS)
        outcome.error = cut(told["text"], limits.ERROR_CHARS) + "\n"

    def close(self, run: Run, outcome: Outcome) -> None: ...

    def answer(self, question: Question, live: bool) -> dict[str, Any]:
        request, op = question.request, question.op
        code, cursor = request["code"], request["cursor"]
        ask = self._kernel.ask if live else self._kernel.ask_now
        answer: Message | None
        if op == "is_complete":
            answer = ask("isComplete", code=code)
        elif op == "complete":
            # JavaScript counts in UTF-16: it gets what stands before the cursor.
            answer = ask("complete", code=code[:cursor])
            if answer is not None:
                length = answer.pop("length", 0)
                answer |= {"cursor_start": max(0, cursor - length), "cursor_end": cursor}
        elif op == "inspect":
            at = len(code[:cursor].encode("utf-16-le", "surrogatepass")) // 2
            answer = ask("describe", code=code, cursor=at, detail=request.get("detail") == 1)
        else:
            answer = ask("variables", digest=request.get("digest") is True)
        if answer is None or "failed" in answer:
            unknown = _UNKNOWN[op]
            return unknown if op != "complete" else unknown | {"cursor_start": cursor, "cursor_end": cursor}
        answer.pop("id", None)
        return answer

    def tidy(self) -> None: ...

    def values(self) -> Iterable[object]:
        return ()

    def resumed(self) -> None:
        self._kernel.reseed()

    def dismiss(self) -> None: ...


def _told_here(error: BaseException, failed: str | None) -> dict[str, str]:
    """An error that is not of the user's code: an interrupt, or a fault of ours."""
    if failed is not None:
        return {"name": "Error", "value": failed, "text": f"[vmrepl: the interpreter failed: {failed}]"}
    name, value = type(error).__name__, str(error)
    text = f"{name}: {value}" if value or isinstance(error, CellStopped) else name
    return {"name": name, "value": value, "text": text}
