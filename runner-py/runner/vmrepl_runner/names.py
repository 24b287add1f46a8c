"""Which names a cell binds in the user's namespace, from its syntax tree.

Functions, classes and lambdas hide what they bind, but for what they declare `global`; comprehensions
hide their targets, but not `:=`. The order is that of the source: the last word on a name counts.
"""

import ast
from typing import Any

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_EXPRESSIONS = frozenset(
    ("value", "test", "iter", "context_expr", "msg", "exc", "cause", "subject", "guard", "annotation", "type")
)
"""Fields of statements in which only `:=` can bind."""
_STATEMENTS = (ast.stmt, ast.withitem)

Scope = set[str] | None
"""Names that bind at the top: all of them (None), or those that a scope below declares global."""


class Names:
    """What a cell does to names; `star` when `import *` hides some."""

    __slots__ = ("bound", "deleted", "star")

    def __init__(self) -> None:
        self.bound: set[str] = set()
        self.deleted: set[str] = set()
        self.star = False

    def bind(self, name: str | None, scope: Scope) -> None:
        if name is not None and (scope is None or name in scope):
            self.bound.add(name)
            self.deleted.discard(name)

    def delete(self, name: str, scope: Scope) -> None:
        # What a function deletes goes when it is called, if ever.
        if scope is None:
            self.deleted.add(name)
            self.bound.discard(name)


def names_of(tree: ast.AST, source: str | None = None) -> Names:
    """The names that running `tree` as a cell can bind or delete. The source, when given, saves the walk
    through expressions: without `:=` in it they bind nothing."""
    names = Names()
    walrus = source is None or ":=" in source
    # A stack, not recursion: a chain of a thousand `elif` is as deep as it is long.
    todo: list[tuple[Any, Scope]] = [(tree, None)]
    while todo:
        node, scope = todo.pop()
        kind = type(node)
        if kind is ast.Name:
            if type(node.ctx) is ast.Store:
                names.bind(node.id, scope)
            elif type(node.ctx) is ast.Del:
                names.delete(node.id, scope)
            continue
        note = _NOTES.get(kind)
        if note is not None:
            note(names, node, scope)
        split = _SPLITS.get(kind)
        if split is not None:
            todo.extend(reversed(split(node, scope, walrus)))
            continue
        without = _EXPRESSIONS if not walrus and isinstance(node, _STATEMENTS) else None
        children = _children(node, without)
        todo.extend((child, scope) for child in reversed(children))
    return names


def _children(node: ast.AST, without: frozenset[str] | None) -> list[ast.AST]:
    found: list[ast.AST] = []
    for field in node._fields:
        if without is not None and field in without:
            continue
        value = getattr(node, field, None)
        if type(value) is list:
            found.extend(item for item in value if isinstance(item, ast.AST))
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


def _import(names: Names, node: ast.Import, scope: Scope) -> None:
    for alias in node.names:
        names.bind(alias.asname or alias.name.partition(".")[0], scope)


def _import_from(names: Names, node: ast.ImportFrom, scope: Scope) -> None:
    for alias in node.names:
        if alias.name == "*":
            names.star = True
        else:
            names.bind(alias.asname or alias.name, scope)


def _global(_names: Names, node: ast.Global, scope: Scope) -> None:
    if scope is not None:
        scope.update(node.names)


_NOTES: dict[type, Any] = {
    ast.Import: _import,
    ast.ImportFrom: _import_from,
    ast.Global: _global,
    ast.FunctionDef: lambda names, node, scope: names.bind(node.name, scope),
    ast.AsyncFunctionDef: lambda names, node, scope: names.bind(node.name, scope),
    ast.ClassDef: lambda names, node, scope: names.bind(node.name, scope),
    ast.ExceptHandler: lambda names, node, scope: names.bind(node.name, scope),
    ast.MatchAs: lambda names, node, scope: names.bind(node.name, scope),
    ast.MatchStar: lambda names, node, scope: names.bind(node.name, scope),
    ast.MatchMapping: lambda names, node, scope: names.bind(node.rest, scope),
}

Parts = list[tuple[Any, Scope]]


def _function(node: Any, scope: Scope, walrus: bool) -> Parts:
    """Decorators, defaults and annotations are evaluated around the function, its body inside it."""
    parts: Parts = []
    if walrus:
        parts = [(part, scope) for part in (*node.decorator_list, node.args)]
        if node.returns is not None:
            parts.append((node.returns, scope))
    inner: Scope = set()
    parts.extend((statement, inner) for statement in node.body)
    return parts


def _class(node: Any, scope: Scope, walrus: bool) -> Parts:
    parts: Parts = []
    if walrus:
        parts = [(part, scope) for part in (*node.decorator_list, *node.bases, *node.keywords)]
    inner: Scope = set()
    parts.extend((statement, inner) for statement in node.body)
    return parts


def _lambda(node: Any, scope: Scope, _walrus: bool) -> Parts:
    return [(node.args, scope)]


def _comprehension(node: Any, scope: Scope, _walrus: bool) -> Parts:
    made = (node.key, node.value) if type(node) is ast.DictComp else (node.elt,)
    parts: Parts = [(part, scope) for part in made]
    for generator in node.generators:
        parts.extend((part, scope) for part in (generator.iter, *generator.ifs))
    return parts


def _alias(node: Any, scope: Scope, _walrus: bool) -> Parts:
    return [(node.name, scope)]


_SPLITS: dict[type, Any] = {
    **dict.fromkeys(_FUNCTIONS, _function),
    **dict.fromkeys(_COMPREHENSIONS, _comprehension),
    ast.ClassDef: _class,
    ast.Lambda: _lambda,
}
if hasattr(ast, "TypeAlias"):
    _SPLITS[ast.TypeAlias] = _alias
