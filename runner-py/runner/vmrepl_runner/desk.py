"""Who is next: the running task, those that wait, the answers that are kept.

Order, each rule with its reason:
- STARTED before the cell's first instruction: from there on output is the cell's;
- no STARTED until the agent has said that the last answer's output is out of the pipes (TAKEN): the
  output of one cell is never told as another's;
- an answer is kept before it is sent: a retry finds the running cell or its answer, never neither.
"""

import select
from collections import deque
from queue import SimpleQueue
from threading import Lock
from time import monotonic

from vmrepl_runner import limits
from vmrepl_runner.cells import Question, Refusal, Repeat, Run, Task
from vmrepl_runner.frames import STARTED, Link, done, frame
from vmrepl_runner.interrupts import Interrupts
from vmrepl_runner.text import encode, quote, to_bytes


class Desk:
    """Shared by the reader, which hands tasks in, and the main thread, which does them."""

    def __init__(self, link: Link, interrupts: Interrupts) -> None:
        self._link = link
        self._interrupts = interrupts
        self._lock = Lock()
        self._active: Task | None = None
        self._waiting: deque[Task] = deque()
        self._work: SimpleQueue[Task | None] = SimpleQueue()
        self._untaken = 0
        self.serial = 0
        """Cells taken in so far."""
        self._runs: dict[str, Run] = {}
        self._kept: dict[str, tuple[bytes, bytes]] = {}
        self._kept_bytes = 0
        self._poll = select.poll()
        self._poll.register(link.fd, select.POLLIN)

    # The reader's side

    def run(self, run: Run, received: bytes) -> None:
        """Takes a cell in, or joins it to the one with its id that was taken in before."""
        size = len(run.code)
        with self._lock:
            if run.id is not None:
                known, kept = self._runs.get(run.id), self._kept.get(run.id)
                if known is not None:
                    known.joined.append(run.connection)
                    return self._link.send(received)
                if kept is not None:
                    return self._hand_in(Repeat(run.connection, *kept), received)
            if len(self._waiting) >= limits.WAITING_RUNS:
                raise Refusal(f"{len(self._waiting)} cells wait already")
            if self._waiting and size + sum(len(r.code) for r in self._runs.values()) > limits.WAITING_BYTES:
                raise Refusal(f"the cells that wait are too long for another {size} characters")
            self.serial += 1
            run.cell = run.id if run.id is not None else f"cell-{self.serial}"
            # By the cell's name: an id is one, and so retries and `interrupt` find it the same way.
            self._runs[run.cell] = run
            return self._hand_in(run, received)

    def ask(self, question: Question, received: bytes) -> bool:
        """Takes a question in when the main thread is free for it, or is about to be."""
        with self._lock:
            if self._waiting or (self._active is not None and not self._active.over):
                return False
            self._hand_in(question, received)
            return True

    def _hand_in(self, task: Task, received: bytes) -> None:
        if self._active is None and (not self._untaken or not isinstance(task, Run)):
            # The main thread sends both in one write.
            task.preface = received
            self._choose(task)
            self._work.put(task)
        else:
            self._waiting.append(task)
            self._link.send(received)

    def taken(self) -> None:
        """The agent has the last answer's output."""
        with self._lock:
            if self._untaken:
                self._untaken -= 1
            task = self._next()
        if task is not None:
            self._work.put(task)

    def interrupt(self, cell: str) -> bool:
        """Stops the cell of that name if it runs, or keeps it from running if it waits."""
        with self._lock:
            run = self._runs.get(cell)
            if run is None:
                return False
            if not run.begun:
                run.stop = True
            elif self._interrupts.is_open:
                self._interrupts.interrupt()
            else:
                return False
            return True

    def signalled(self, cell: str, sent_ns: int) -> None:
        """The agent has sent the running cell a signal."""
        with self._lock:
            run = self._runs.get(cell)
            if run is not None and run is self._active and run.begun:
                self._interrupts.signalled(sent_ns)

    def exceeded(self, cell: str, status: str, message: str) -> None:
        """The agent has seen the running cell go over a limit."""
        with self._lock:
            run = self._runs.get(cell)
            if run is not None and run is self._active and run.begun and self._interrupts.is_open:
                self._interrupts.exceed(status, message)

    def is_busy(self) -> bool:
        """Whether user code runs or waits to."""
        active = self._active
        return bool(self._waiting) or (active is not None and not active.over)

    def find(self, cell: str | None) -> Run | None:
        """The running cell, or the unfinished one of that name."""
        if cell is not None:
            return self._runs.get(cell)
        active = self._active
        return active if isinstance(active, Run) else None

    def closed(self, connection: int) -> None:
        """A client is gone: nobody answers its cells' questions for input."""
        for run in list(self._runs.values()):
            if run.connection == connection:
                run.closed = True
                if run.lines is not None:
                    run.lines.put(None)

    def end(self) -> None:
        """No more tasks: the main thread leaves when it is free."""
        self._work.put(None)

    def watch(self) -> None:
        """Returns when there is something to read; meanwhile stops what runs out of time."""
        while True:
            task, patience_ms = self._patience_ms()
            if patience_ms is None or self._poll.poll(patience_ms):
                return
            with self._lock:
                if task is None or task is not self._active:
                    continue
                self._interrupts.repeat()
                if task.deadline is not None and monotonic() >= task.deadline:
                    task.deadline = None
                    if not task.begun:
                        task.expired = True
                    elif self._interrupts.is_open:
                        self._interrupts.expire(task.timeout_ms)

    def _patience_ms(self) -> tuple[Task | None, float | None]:
        """The running task, and how long nothing can fall due; None for ever."""
        # As of one moment: a task that waited is the running one in the next, and its time must not be missed.
        with self._lock:
            task, is_sent = self._active, self._interrupts.is_sent
            # One that starts meanwhile has its whole time before it: nobody needs to wake us for it.
            found: list[float] = [max(limits.REPEAT_MS, due.timeout_ms) for due in self._waiting if due.timeout_ms]
        if task is not None and task.deadline is not None:
            found.append(max(0.0, task.deadline - monotonic()) * 1000)
        if is_sent:
            found.append(limits.REPEAT_MS)
        return task, min(found, default=None)

    # The main thread's side

    def first(self) -> Task | None:
        """The next task; waits for it. None at the end."""
        return self._work.get()

    def begin(self, task: Task) -> None:
        """The task starts: what goes before its first instruction."""
        with self._lock:
            task.begun = True
            self._interrupts.begin(task.stop, task.timeout_ms if task.expired else 0)
        data = task.preface + _started(task) if isinstance(task, Run) else task.preface
        if data:
            self._link.send(data)

    def ready(self) -> Task | None:
        """The next task, if there is one."""
        return None if self._work.empty() else self._work.get()

    def finish(self, run: Run, prefix: bytes, suffix: bytes) -> None:
        """Sends a cell's answer to whoever asked for it, and keeps it."""
        with self._lock:
            self._runs.pop(run.cell, None)
            if run.id is not None:
                self._keep(run.id, prefix, suffix)
            self._untaken += 1
            run.over = True
        # In one write: each wakes the agent.
        answer = run.tail + done(run.connection, prefix, suffix)
        for connection in run.joined:
            answer += done(connection, prefix, suffix)
        self._link.send(answer)

    def leave(self) -> Task | None:
        """The main thread is free again; returns what it does next, if anything waits."""
        with self._lock:
            self._active = None
            return self._next()

    def _next(self) -> Task | None:
        if self._active is not None or not self._waiting:
            return None
        if self._untaken and isinstance(self._waiting[0], Run):
            return None
        return self._choose(self._waiting.popleft())

    def _choose(self, task: Task) -> Task:
        self._active = task
        if task.timeout_ms:
            task.deadline = monotonic() + task.timeout_ms / 1000
        return task

    def _keep(self, id_: str, prefix: bytes, suffix: bytes) -> None:
        if len(suffix) > limits.KEPT_ANSWER_BYTES:
            return
        self._kept[id_] = prefix, suffix
        self._kept_bytes += len(suffix)
        while len(self._kept) > limits.KEPT_ANSWERS or self._kept_bytes > limits.KEPT_ANSWER_BYTES:
            oldest = next(iter(self._kept))
            self._kept_bytes -= len(self._kept.pop(oldest)[1])


def _started(task: Run) -> bytes:
    if not task.extended:
        text = f'{{"cell": "{task.cell}", "id": null, "stream": false, "extended": false}}'
        return frame(STARTED, task.connection, text.encode())
    name = "null" if task.id is None else quote(task.id)
    stream = "true" if task.stream else "false"
    most = ""
    if task.limits:
        watched = dict(task.limits)
        kept = watched.pop("output_bytes", None)
        most = "" if kept is None else f', "output_bytes": {kept}'
        most += f', "limits": {encode(watched)}' if watched else ""
    text = f'{{"cell": {quote(task.cell)}, "id": {name}, "stream": {stream}, "extended": true{most}}}'
    return frame(STARTED, task.connection, to_bytes(text))
