"""What could stand at the cursor."""

import builtins
import inspect
import keyword
import re
from typing import Any

from vmrepl_runner import limits
from vmrepl_runner.lookup import MISSING, kind_of, look_up, members, primary_start, quote_before, static_value
from vmrepl_runner.modules import module_names, names_in

Match = dict[str, Any]
Found = tuple[int, list[Match]]
"""Length of what a match replaces before the cursor, and the matches."""

_WORD = re.compile(r"\w*$")
_IMPORT = re.compile(r"^\s*(?:import\s+(?:[\w.]+(?:\s+as\s+\w+)?\s*,\s*)*|from\s+)([\w.]*)$")
_FROM = re.compile(r"^\s*from\s+([\w.]+)\s+import\s+\(?(?:\w+(?:\s+as\s+\w+)?\s*,\s*)*(\w*)$")
_FROM_WORD = re.compile(r"^\s*from\s+[\w.]+\s+(i\w*)$")
_KEY = re.compile(r"\[\s*(['\"])((?:(?!\1).)*)$")
_NUMBER = re.compile(r"(?:^|[^\w.])\d[\d_]*\.?\w*$")


def complete(code: str, cursor: int, space: dict[str, Any], live: bool) -> dict[str, Any]:
    """The matches and what they replace, in code points."""
    before = code[:cursor]
    line = before[before.rfind("\n") + 1 :]
    length, matches = _import(line) or _key(before, line, space, live) or _name(before, space, live)
    return {"matches": matches[: limits.MATCHES], "cursor_start": cursor - length, "cursor_end": cursor}


def _import(line: str) -> Found | None:
    found = _FROM.match(line)
    if found:
        names, prefix = names_in(found[1]), found[2]
        return len(prefix), [{"text": name, "type": kind} for name, kind in names if _fits(name, prefix)]
    found = _FROM_WORD.match(line)
    if found:
        return len(found[1]), [{"text": "import", "type": "keyword"}] if "import".startswith(found[1]) else []
    found = _IMPORT.match(line)
    if found:
        package, _, prefix = found[1].rpartition(".")
        return len(prefix), [{"text": name, "type": "module"} for name in module_names(package) if _fits(name, prefix)]
    return None


def _key(before: str, line: str, space: dict[str, Any], live: bool) -> Found | None:
    found = _KEY.search(line)
    if found is None:
        return None
    end = len(before) - len(line) + found.start()
    owner = look_up(before[primary_start(before, end) : end], space, live)
    if isinstance(owner, dict) and (live or type(owner) is dict):
        keys = list(owner)
    elif live and owner is not MISSING and hasattr(type(owner), "columns"):
        keys = list(owner.columns)
    else:
        return None
    quote, prefix = found[1], found[2]
    wanted = [key for key in keys if isinstance(key, str) and key.startswith(prefix)]
    texts = [key.replace("\\", "\\\\").replace(quote, "\\" + quote).replace("\n", "\\n") for key in wanted]
    return len(prefix), [{"text": text, "type": "instance"} for text in texts]


def _name(before: str, space: dict[str, Any], live: bool) -> Found:
    word = _WORD.search(before)
    prefix = word[0] if word else ""
    start = len(before) - len(prefix)
    if _NUMBER.search(before):
        return 0, []
    if start and before[start - 1] == ".":
        owner = look_up(before[primary_start(before, start - 1) : start - 1], space, live)
        return len(prefix), [] if owner is MISSING else _attributes(owner, prefix, live)
    return len(prefix), _arguments(before[:start], prefix, space, live) + _globals(prefix, space, live)


def _fits(name: str, prefix: str) -> bool:
    """Private names are shown to those who ask for them."""
    return name.startswith(prefix) and (prefix.startswith("_") or not name.startswith("_"))


def _attributes(owner: Any, prefix: str, live: bool) -> list[Match]:
    names = [name for name in members(owner, live) if _fits(name, prefix) and name.isidentifier()]
    pairs = [(name, static_value(owner, name)) for name in names[: limits.MATCHES]]
    return _signed([(name, value) for name, value in pairs], live)


def _globals(prefix: str, space: dict[str, Any], live: bool) -> list[Match]:
    own = [(name, value) for name, value in sorted(space.copy().items()) if _fits(name, prefix)]
    known = {name for name, _ in own}
    words = [{"text": word, "type": "keyword"} for word in keyword.kwlist if prefix and word.startswith(prefix)]
    others = [(n, v) for n, v in sorted(vars(builtins).items()) if n not in known and _fits(n, prefix)]
    others = [(n, v) for n, v in others if n not in keyword.kwlist]
    return _signed(own, live) + words + _signed(others, live)


def _signed(pairs: list[tuple[str, Any]], live: bool) -> list[Match]:
    matches: list[Match] = []
    for name, value in pairs:
        match: Match = {"text": name, "type": kind_of(value)}
        if live and len(pairs) <= limits.SIGNED_MATCHES and match["type"] in ("function", "class"):
            signature = signature_of(value)
            if signature is not None:
                match["signature"] = signature
        matches.append(match)
    return matches


def signature_of(value: Any) -> str | None:
    """How a callable is called, as text."""
    try:
        function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        return str(inspect.signature(function))[: limits.NAME_CHARS]
    except Exception:
        return None


def called(before: str) -> str | None:
    """The source of what is being called at the end of `before`: the bracket that is still open."""
    depth, at = 0, len(before) - 1
    while at >= 0:
        char = before[at]
        if char in "'\"":
            at = quote_before(before, at)
            if at < 0:
                return None
        elif char in ")]}":
            depth += 1
        elif char in "([{":
            if depth == 0:
                return before[primary_start(before, at) : at] or None if char == "(" else None
            depth -= 1
        at -= 1
    return None


def _arguments(before: str, prefix: str, space: dict[str, Any], live: bool) -> list[Match]:
    source = called(before)
    function = MISSING if source is None else look_up(source, space, live)
    if function is MISSING or not (live or inspect.isroutine(function)):
        return []
    try:
        parameters = inspect.signature(function).parameters.values()
    except Exception:
        return []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    given = _given(before)
    names = [p.name for p in parameters if p.kind in kinds and p.name not in given and p.name.startswith(prefix)]
    return [{"text": f"{name}=", "type": "instance"} for name in names]


def _given(before: str) -> set[str]:
    return set(re.findall(r"[(,]\s*(\w+)\s*=(?!=)", before[before.rfind("\n") + 1 :]))
