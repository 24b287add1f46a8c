"""Which names a cell binds in the user's namespace, from its syntax tree.

Scopes of their own (functions, classes, lambdas, comprehensions) hide what they bind, but for
`global` declarations and, in comprehensions, `:=`.
"""

import ast
from dataclasses import dataclass, field


@dataclass
class Names:
    """Bound and deleted names in order of first appearance; `star` when `import *` hides some."""

    bound: dict[str, None] = field(default_factory=dict)
    deleted: dict[str, None] = field(default_factory=dict)
    star: bool = False


def names_of(tree: ast.AST) -> Names:
    """The names that running `tree` as a cell can bind or delete."""
    collector = _Collector(None)
    collector.visit(tree)
    return collector.names


class _Collector(ast.NodeVisitor):
    """Collects at one scope: all names at the top, only those declared global below it."""

    def __init__(self, declared: set[str] | None) -> None:
        self.names = Names()
        self._declared = declared

    def _here(self, name: str) -> bool:
        return self._declared is None or name in self._declared

    def _bind(self, name: str | None) -> None:
        if name is not None and self._here(name):
            self.names.bound[name] = None

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id)
        elif isinstance(node.ctx, ast.Del) and self._here(node.id):
            self.names.deleted[node.id] = None

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._bind(alias.asname or alias.name.partition(".")[0])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == "*":
                self.names.star = True
            else:
                self._bind(alias.asname or alias.name)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._bind(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self._bind(node.name)
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        self._bind(node.name)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self._bind(node.rest)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._bind(node.name)
        for decorator in node.decorator_list:
            self.visit(decorator)
        self._arguments(node.args)
        if node.returns is not None:
            self.visit(node.returns)
        self._below(node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._arguments(node.args)

    def _arguments(self, arguments: ast.arguments) -> None:
        """Defaults and annotations are evaluated in the scope around the function."""
        for default in [*arguments.defaults, *arguments.kw_defaults]:
            if default is not None:
                self.visit(default)
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for argument in [*every, arguments.vararg, arguments.kwarg]:
            if argument is not None and argument.annotation is not None:
                self.visit(argument.annotation)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bind(node.name)
        for outside in [*node.decorator_list, *node.bases, *node.keywords]:
            self.visit(outside)
        self._below(node.body)

    def _below(self, body: list[ast.stmt]) -> None:
        declared = {
            name
            for statement in body
            for node in _own(statement)
            if isinstance(node, ast.Global)
            for name in node.names
        }
        inner = _Collector(declared)
        for statement in body:
            inner.visit(statement)
        self.names.bound.update(inner.names.bound)
        self.names.deleted.update(inner.names.deleted)

    def _comprehension(self, node: ast.AST) -> None:
        for part in _own(node):
            if isinstance(part, ast.NamedExpr):
                self._bind(part.target.id)

    visit_ListComp = _comprehension
    visit_SetComp = _comprehension
    visit_DictComp = _comprehension
    visit_GeneratorExp = _comprehension


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def _own(root: ast.AST) -> list[ast.AST]:
    """The nodes below `root` that are not inside a function, lambda or class of their own."""
    found: list[ast.AST] = []
    todo = [root]
    while todo:
        node = todo.pop()
        found.append(node)
        if not isinstance(node, _SCOPES):
            todo.extend(ast.iter_child_nodes(node))
    return found
