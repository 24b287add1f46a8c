"""The main thread: does one task after another, and takes back between them what user code has changed."""

import os
import sys
import traceback
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from vmrepl_runner import answers
from vmrepl_runner.backend import Backend
from vmrepl_runner.cells import Outcome, Question, Repeat, Run, Task
from vmrepl_runner.desk import Desk
from vmrepl_runner.frames import Link, done
from vmrepl_runner.interrupts import Interrupts, status_of
from vmrepl_runner.stage import Stage
from vmrepl_runner.stdin import Stdin
from vmrepl_runner.streams import Streams


class Runner:
    """Everything that lives on the main thread."""

    def __init__(
        self, link: Link, interrupts: Interrupts, streams: Streams, language: Callable[[Stage], Backend]
    ) -> None:
        self._link = link
        self._streams = streams
        self.interrupts = interrupts
        self.desk = Desk(link, interrupts)
        self._stage = Stage(link, interrupts, streams.flush)
        self._stdin = Stdin(self._stage.read_line)
        self.backend = language(self._stage)

    def install(self) -> None:
        """Puts our hooks where user code finds them."""
        self.interrupts.install()
        self.interrupts.watch_finalizers()
        self._stdin.install()
        self.backend.install()

    def work(self) -> None:
        """Does tasks until there are no more to come."""
        while (task := self.desk.first()) is not None:
            self._perform(task)

    def catch_up(self) -> None:
        """Does the task that waits, if any."""
        while (task := self.desk.ready()) is not None:
            self._perform(task)

    def dismiss(self) -> None:
        """An understudy has played its part: what it took of the process is given back."""
        self.backend.dismiss()

    def _perform(self, task: Task | None) -> None:
        while task is not None:
            self.desk.begin(task)
            if isinstance(task, Run):
                self._perform_run(task)
            elif isinstance(task, Question):
                self._perform_question(task)
            elif isinstance(task, Repeat):
                self.interrupts.end()
                self._link.send(done(task.connection, task.prefix, task.suffix))
            # The agent is to carry the answer away before we clean up behind it.
            os.sched_yield()
            self._tidy()
            task = self.desk.leave()

    def _perform_run(self, run: Run) -> None:
        outcome = Outcome()
        guard = self.interrupts.guard
        self._stage.enter(run, outcome)
        began_ns = perf_counter_ns()
        error = guard(self.backend.run, run, outcome)
        if self._link.forked:
            self._leave_child(error)
        if run.extended:
            outcome.run_ns = perf_counter_ns() - began_ns
        if error is not None:
            self._explain(run, outcome, error)
        if run.extended:
            self._tell(run, outcome)
        error = guard(self._streams.flush)
        self.interrupts.end()
        if error is not None and outcome.error is None:
            self._explain(run, outcome, error)
        self._stage.leave()
        try:
            prefix, suffix = answers.halves(run, outcome)
        except Exception as failure:
            outcome = Outcome()
            outcome.exit_code, outcome.status = 2, "error"
            outcome.error = f"the runner could not tell what the cell came to: {failure!r}"
            prefix, suffix = answers.halves(run, outcome)
        self.desk.finish(run, prefix, suffix)

    def _explain(self, run: Run, outcome: Outcome, error: BaseException) -> None:
        failure = self.interrupts.guard(self.backend.explain, run, outcome, error)
        if failure is None:
            return
        # Only what cannot fail: the exception's own code may be the culprit.
        stopped = failure if isinstance(failure, KeyboardInterrupt) else error
        outcome.exit_code = 1
        outcome.status = status_of(stopped)
        outcome.error_name = type(error).__name__
        outcome.error = f"{outcome.error_name}\n[vmrepl: {type(failure).__name__} while it was described]\n"

    def _tell(self, run: Run, outcome: Outcome) -> None:
        """The end of a cell for a client that wants more than the plain answer."""
        failure = self.interrupts.guard(self.backend.close, run, outcome)
        if failure is not None and outcome.error is None:
            self._explain(run, outcome, failure)
        if not run.stream:
            return
        if outcome.result is not None:
            run.tail += answers.event(run, "result", outcome.result)
        for table in outcome.tables:
            run.tail += answers.event(run, "table", {"table": table})
        if outcome.error is not None:
            fields = {"name": outcome.error_name, "value": outcome.error_value, "traceback": outcome.error}
            run.tail += answers.event(run, "error", fields)

    def _perform_question(self, question: Question) -> None:
        found: list[dict[str, Any]] = []
        error = self.interrupts.guard(lambda: found.append(self.backend.answer(question, live=True)))
        self.interrupts.end()
        if self._link.forked:
            self._leave_child(error)
        try:
            fields = found[0] if found else self.backend.answer(question, live=False)
            data = answers.reply(question.connection, question.id, fields)
        except Exception as failure:
            message = f"`{question.op}` failed: {type(failure).__name__}"
            data = answers.refusal(question.connection, question.id, message)
        question.over = True
        self._link.send(data)

    def _tidy(self) -> None:
        self._streams.restore()
        self._stdin.restore()
        self.interrupts.install()
        self.backend.tidy()

    def _leave_child(self, error: BaseException | None) -> None:
        """A child that user code forked has fallen out of its cell: it is not the runner."""
        code = 0
        try:
            if isinstance(error, SystemExit):
                code = error.code if isinstance(error.code, int) else int(error.code is not None)
                if isinstance(error.code, str):
                    print(error.code, file=sys.stderr)
            elif error is not None:
                code = 1
                traceback.print_exception(error)
            self._streams.flush()
        finally:
            os._exit(code & 0xFF)
