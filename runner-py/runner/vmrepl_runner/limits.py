"""The bound of everything that somebody else controls."""

REQUEST_BYTES = 16 << 20
FRAME_BYTES = REQUEST_BYTES + (64 << 10)
"""One frame either way."""

ANSWER_BYTES = 12 << 20
"""An answer without its output: with it, the line must stay under the line's limit."""

CELL_NUMBER = 1 << 20
"""The highest number that a client may give a cell: `In` has as many places."""

WAITING_RUNS = 64
WAITING_BYTES = 64 << 20
"""Cells that wait behind the running one."""

KEPT_ANSWERS = 64
KEPT_ANSWER_BYTES = 8 << 20
"""Answers kept for clients that ask again with the same id."""

REPR_CHARS = 512 << 10
ERROR_CHARS = 256 << 10
NAME_CHARS = 1 << 10
"""Texts of an answer."""

MIME_BYTES = 4 << 20
DISPLAY_BYTES = 8 << 20
"""One form of one value; all displays of a cell that are kept for its answer."""

CHAINED_ERRORS = 1_000
"""Errors looked at, one raised while another was handled, for the interrupt that began it."""

JSON_DEPTH = 100
"""Nesting of JSON that user code hands out: the host's reader stops at 128."""

TABLES = 64
TABLE_COLUMNS = 2_000
PREVIEW_ROWS = 10
PREVIEW_COLUMNS = 40
PREVIEW_CELL_CHARS = 40
"""What is told of tables."""

INPUT_CHARS = 4 << 20
"""Input that came before the cell asked for it."""

SOURCE_CHARS = 64 << 20
"""Source text of old cells, kept for tracebacks and `inspect`."""

MATCHES = 500
SIGNED_MATCHES = 24
"""Completions, and how few there must be to show how each is called."""

VARIABLES = 2_000
SHORT_CHARS = 100
"""The list of names, and the short form of a value."""

QUESTION_MS = 2_000
"""How long user code (a property, a `__dir__`) may hold up the answer to a question."""

KERNEL_PATIENCE_MS = 1_500
"""How long another language's interpreter may take for what is asked of it beside its cells."""

FINGERPRINT_MS = 600_000
"""How long the sums of all values may take."""

FINGERPRINT_DEPTH = 200
"""Values inside values, of whose sum is one."""

DOCUMENT_CHARS = 256 << 10
"""One inspection."""

RECURSION = 300
"""The recursion limit that user code cannot lower for the next cell."""
REPEAT_MS = 20
"""How long a cell may take to notice a signal before it gets another."""
