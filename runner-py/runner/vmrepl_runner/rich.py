"""A value in as many forms as it has, by MIME type; figures as pictures."""

import base64
import io
import sys
from typing import Any

from vmrepl_runner import limits
from vmrepl_runner.text import cut, depth_of, encode

_METHODS = (
    ("_repr_html_", "text/html"),
    ("_repr_markdown_", "text/markdown"),
    ("_repr_svg_", "image/svg+xml"),
    ("_repr_png_", "image/png"),
    ("_repr_jpeg_", "image/jpeg"),
    ("_repr_latex_", "text/latex"),
    ("_repr_json_", "application/json"),
)


def note(text: str) -> None:
    """Tells the user on standard error what we have left out."""
    print(f"[vmrepl: {text}]", file=sys.stderr)


def text_of(value: Any) -> str:
    """`repr`, bounded. A `repr` that fails is told in its place: the cell itself has run."""
    try:
        text = repr(value)
    except Exception as error:
        try:
            why = f"{type(error).__name__}: {error}"
        except Exception:
            why = type(error).__name__
        return f"<{type(value).__name__} object, whose repr raised {cut(why, limits.NAME_CHARS)}>"
    return cut(text, limits.REPR_CHARS)


def bundle_of(value: Any, text: str) -> dict[str, Any]:
    """Data and metadata. A form that fails is left out with a note on standard error."""
    data: dict[str, Any] = {"text/plain": text}
    metadata: dict[str, Any] = {}
    kind = type(value)
    if kind.__module__ == "builtins" or isinstance(value, type):
        return {"data": data, "metadata": metadata}
    whole = getattr(kind, "_repr_mimebundle_", None)
    if whole is not None:
        _take_bundle(_called(whole, value, "_repr_mimebundle_"), data, metadata)
    for name, mime in _METHODS:
        method = getattr(kind, name, None)
        if method is not None and mime not in data:
            form = _called(method, value, name)
            if isinstance(form, tuple) and len(form) == 2 and isinstance(form[1], dict):
                metadata.update(checked_metadata({mime: form[1]}))
                form = form[0]
            _put(data, mime, form)
    if "image/png" not in data and _is_figure(value):
        _put(data, "image/png", _picture(value))
    return {"data": data, "metadata": metadata}


def _take_bundle(found: Any, data: dict[str, Any], metadata: dict[str, Any]) -> None:
    forms, notes = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if isinstance(forms, dict):
        for mime, form in forms.items():
            _put(data, str(mime), form)
    if isinstance(notes, dict):
        metadata.update(checked_metadata(notes))


def _called(method: Any, value: Any, name: str) -> Any:
    try:
        return method(value)
    except NotImplementedError:
        return None
    except Exception as error:
        note(f"{name} raised {type(error).__name__}")
        return None


def _put(data: dict[str, Any], mime: str, form: Any) -> None:
    """Adds a form that fits into strict JSON and its bound."""
    if form is None:
        return
    if isinstance(form, (bytes, bytearray, memoryview)):
        form = base64.b64encode(form).decode()
    elif not isinstance(form, str):
        if not mime.partition(";")[0].endswith("json"):
            form = str(form)
        elif not _is_strict(form):
            note(f"{mime} was left out: it is not plain JSON")
            return
    size = len(form) if isinstance(form, str) else len(encode(form))
    if size > limits.MIME_BYTES:
        note(f"{mime} was left out: its {size} characters are more than {limits.MIME_BYTES}")
        return
    if mime != "text/plain" or form:
        data[mime] = form


def _is_strict(form: Any) -> bool:
    try:
        encode(form)
    except (ValueError, TypeError, RecursionError):
        return False
    return depth_of(form) <= limits.JSON_DEPTH


def checked_metadata(metadata: dict[Any, Any]) -> dict[str, Any]:
    """The entries that fit into strict JSON."""
    return {str(key): value for key, value in metadata.items() if _is_strict(value)}


def _is_figure(value: Any) -> bool:
    figure = sys.modules.get("matplotlib.figure")
    return figure is not None and isinstance(value, figure.Figure)


def _picture(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def open_figures(shown: set[int]) -> list[dict[str, Any]]:
    """matplotlib's open figures as pictures, but for those that were shown already; all are closed."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    if pyplot is None or helpers is None:
        return []
    if not helpers.Gcf.figs:
        return []
    managers = list(helpers.Gcf.get_all_fig_managers())
    bundles: list[dict[str, Any]] = []
    for manager in managers:
        figure = manager.canvas.figure
        if id(figure) in shown:
            continue
        try:
            bundles.append(bundle_of(figure, text_of(figure)))
        except Exception as error:
            note(f"a figure cannot be drawn: {type(error).__name__}: {error}")
    pyplot.close("all")
    return bundles
