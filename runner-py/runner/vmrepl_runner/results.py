"""A value in as many forms as it has, by MIME type; figures as pictures."""

import base64
import io
import sys
from typing import Any

REPR_CHARS_MAX = 1 << 20
RICH_BYTES_MAX = 8 << 20

_METHODS = (
    ("_repr_html_", "text/html"),
    ("_repr_markdown_", "text/markdown"),
    ("_repr_svg_", "image/svg+xml"),
    ("_repr_png_", "image/png"),
    ("_repr_jpeg_", "image/jpeg"),
    ("_repr_latex_", "text/latex"),
    ("_repr_json_", "application/json"),
)


def text_of(value: Any) -> str:
    """`repr`, bounded. What `repr` raises is the cell's own error."""
    text = repr(value)
    if len(text) > REPR_CHARS_MAX:
        half = REPR_CHARS_MAX // 2
        text = f"{text[:half]}\n... ({len(text) - 2 * half} characters left out) ...\n{text[-half:]}"
    return text


def bundle_of(value: Any, text: str) -> dict[str, Any]:
    """Data and metadata; a form that fails is left out with a note on stderr."""
    data: dict[str, Any] = {"text/plain": text}
    metadata: dict[str, Any] = {}
    kind = type(value)
    if kind.__module__ == "builtins" or isinstance(value, type):
        return {"data": data, "metadata": metadata}
    whole = getattr(kind, "_repr_mimebundle_", None)
    if whole is not None:
        found = _call(whole, value, "_repr_mimebundle_")
        parts = found if isinstance(found, tuple) else (found, {})
        if isinstance(parts[0], dict):
            for mime, form in parts[0].items():
                _put(data, str(mime), form)
            metadata.update(parts[1] or {})
    for name, mime in _METHODS:
        method = getattr(kind, name, None)
        if method is not None and mime not in data:
            _put(data, mime, _call(method, value, name))
    return {"data": data, "metadata": metadata}


def _call(method: Any, value: Any, name: str) -> Any:
    try:
        return method(value)
    except NotImplementedError:
        return None
    except Exception as error:
        print(f"[vmrepl: {name} raised {type(error).__name__}: {error}]", file=sys.stderr)
        return None


def _put(data: dict[str, Any], mime: str, form: Any) -> None:
    if isinstance(form, tuple):
        form = form[0]
    if form is None:
        return
    if isinstance(form, (bytes, bytearray)):
        form = base64.b64encode(form).decode()
    if isinstance(form, str) and len(form) > RICH_BYTES_MAX:
        print(f"[vmrepl: {mime} left out: {len(form)} characters]", file=sys.stderr)
        return
    data[mime] = form


def open_figures() -> list[dict[str, Any]]:
    """matplotlib's open figures as pictures; they are closed."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return []
    bundles = []
    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", bbox_inches="tight")
        data = {"text/plain": repr(figure)}
        _put(data, "image/png", buffer.getvalue())
        bundles.append({"data": data, "metadata": {}})
    pyplot.close("all")
    return bundles
