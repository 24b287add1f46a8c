"""The face of a language: all that the rest of the runner knows of it."""

from collections.abc import Iterable
from typing import Any, Protocol

from vmrepl_runner.cells import Outcome, Question, Run


class Backend(Protocol):
    """One language's session. `run`, `explain`, `close` and live answers may run user code: they are
    called on the main thread, where an interrupt may hit them anywhere."""

    def install(self) -> None:
        """Puts hooks where user code finds them; called once, before the first cell."""

    def run(self, run: Run, outcome: Outcome) -> None:
        """Runs a cell and notes its value, names and tables. Raises what the cell raises."""

    def explain(self, run: Run, outcome: Outcome, error: BaseException) -> None:
        """Notes what an exception of the cell means: status, exit code, traceback."""

    def close(self, run: Run, outcome: Outcome) -> None:
        """Shows what a cell has left to be shown at its end."""

    def answer(self, question: Question, live: bool) -> dict[str, Any]:
        """Answers a question; unless `live` without running any user code, from any thread."""

    def tidy(self) -> None:
        """Between cells: takes back what user code may have changed."""

    def values(self) -> Iterable[object]:
        """The values of the user's names."""

    def resumed(self) -> None:
        """This is a copy of a machine now: what the reseeder does not reach draws numbers of its own. Called
        on the reader's thread."""

    def dismiss(self) -> None:
        """Leaves no trace of what it has run."""
