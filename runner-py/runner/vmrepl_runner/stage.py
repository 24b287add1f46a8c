"""What user code can reach of us while its cell runs: displays and input."""

from collections.abc import Callable

from vmrepl_runner import limits
from vmrepl_runner.answers import event
from vmrepl_runner.cells import Bundle, Outcome, Run
from vmrepl_runner.frames import Link
from vmrepl_runner.interrupts import Interrupts
from vmrepl_runner.text import encode


class Stage:
    """Set up for one cell after another. A forked child plays on it for itself: nothing leaves."""

    def __init__(self, link: Link, interrupts: Interrupts, flush: Callable[[], None]) -> None:
        self._link = link
        self._flush = flush
        self._run: Run | None = None
        self._outcome = Outcome()
        self._kept_bytes = 0
        self.interrupts = interrupts

    def enter(self, run: Run, outcome: Outcome) -> None:
        """A cell begins."""
        self._kept_bytes = 0
        self._outcome = outcome
        self._run = run

    def leave(self) -> None:
        """The cell is over; whoever still waits for its input waits no longer."""
        run, self._run = self._run, None
        if run is not None and run.lines is not None:
            run.lines.put(None)

    @property
    def is_rich(self) -> bool:
        """Whether the client takes displays; a plain one sees text on standard output."""
        return self._run is not None and self._run.extended and not self._link.forked

    def display(self, bundle: Bundle) -> bool:
        """Shows a bundle; False when it is one too many for the answer."""
        run = self._run
        if run is None:
            return False
        if run.stream:
            self.tell(run, "display", bundle)
            return True
        self._kept_bytes += len(encode(bundle))
        if self._kept_bytes > limits.DISPLAY_BYTES:
            return False
        self._outcome.displays.append(bundle)
        return True

    def tell(self, run: Run, kind: str, fields: Bundle) -> None:
        """Sends an event behind what was printed before it."""
        if run.closed and not run.joined:
            return
        self._flush()
        data = event(run, kind, fields)
        armed = self.interrupts.hold()
        try:
            self._link.send(data)
        finally:
            self.interrupts.release(armed)

    def read_line(self, prompt: str, password: bool) -> str | None:
        """The next piece of input, exactly as it came: a line with its newline, or the last one without; None
        at the end."""
        run = self._run
        if run is None or run.lines is None or run.closed or self._link.forked:
            return None
        if run.lines.empty():
            self.tell(run, "input_request", {"prompt": prompt, "password": password})
        line = run.lines.get()
        if line is not None:
            run.chars_read += len(line)
        elif run.overrun:
            raise OSError(f"more than {limits.INPUT_CHARS} characters of input came before they were asked for")
        return line
