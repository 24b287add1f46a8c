"""The names that a cell binds: every form, and the interpreter's own word over its library."""

import ast
import json
import subprocess
import symtable
import sys
import sysconfig
import warnings
from pathlib import Path

import pytest
from vmrepl_runner.names import names_of

FORMS = {
    "a = b = 1": "a b",
    "a, (b, *c) = d": "a b c",
    "[a, b[0], c.d] = e": "a",
    "a: int = 1": "a",
    "a += 1": "a",
    "(a := 1)": "a",
    "f(a := 1)[b := 2]": "a b",
    "[b := a for a in c if (d := a)]": "b d",
    "{a: (b := c) for a, c in d}": "b",
    "sum((t := i) for i in range(3))": "t",
    "[[x := i for i in j] for j in k]": "x",
    "for a, b in c: d = 1\nelse: e = 1": "a b d e",
    "async def f():\n    async for a in b: pass": "f",
    "while (a := 1): b = 1\nelse: c = 1": "a b c",
    "with a as b, c as (d, e): f = 1": "b d e f",
    "import a.b.c": "a",
    "import a.b as c, d": "c d",
    "from a.b import c, d as e": "c e",
    "from . import a": "a",
    "from __future__ import annotations": "annotations",
    "def f(a, b=(c := 1), *, d=(e := 2)): g = 1": "c e f",
    "@(a := b)\ndef f() -> (c := int): pass": "a c f",
    "def f(x: (a := int)): pass": "a f",
    "def f():\n    global a, b\n    a = 1\n    print(b)": "a f",
    "def f():\n    global a\n    def g():\n        a = 1\n    for a in b: pass": "a f",
    "def f():\n    def g():\n        global a\n        import a\n    a = 1": "a f",
    "def f():\n    global a\n    [a := i for i in b]": "a f",
    "class A((b := object), metaclass=(c := type)):\n    d = 1\n    def e(self): pass": "A b c",
    "class A:\n    global d\n    d = 1": "A d",
    "lambda a, b=(c := 1): (d := 2)": "c",
    "try: a = 1\nexcept E as b: c = 1\nelse: d = 1\nfinally: e = 1": "a b c d e",
    "try: pass\nexcept* E as a: pass": "a",
    "match a:\n    case b: pass": "b",
    "match a:\n    case [b, *c] | {'k': b, **c} if (d := 1): e = 1": "b c d e",
    "match a:\n    case A(b, c=d) as e: pass\n    case _: pass": "b d e",
    "if a: b = 1\nelif c: d = 1\nelse: e = 1": "b d e",
    "a = 1\ndel a": "",
    "del a\na = 1": "a",
    "a.b = 1; a[0] = 2": "",
    "assert (a := 1), (b := 2)": "a b",
    "f'{(a := 1)}'": "a",
    "a = (yield_ := 1)": "a yield_",
    "é = 1; ª = 2": "é a",
}


@pytest.mark.parametrize("code", FORMS)
def test_each_form(code: str) -> None:
    tree = ast.parse(code)
    assert sorted(names_of(tree).bound) == sorted(FORMS[code].split())
    assert names_of(tree, code).bound == names_of(tree).bound


if sys.version_info >= (3, 12):

    def test_type_aliases() -> None:
        assert names_of(ast.parse("type A[T] = list[T]\ndef f[T](): pass\nclass B[T]: pass")).bound == {"A", "B", "f"}


def test_deletes_and_stars() -> None:
    names = names_of(ast.parse("del a, b.c, (d, e)\nfrom x import *\ndef f():\n    global g\n    del g"))
    assert names.deleted == {"a", "d", "e"}
    assert names.star
    again = names_of(ast.parse("del a\na = 1"))
    assert (again.bound, again.deleted) == ({"a"}, set())


def test_a_long_chain_is_no_deep_one() -> None:
    code = "if a: pass\n" + "".join(f"elif a == {n}: x{n} = 1\n" for n in range(300))
    assert len(names_of(ast.parse(code)).bound) == 300
    assert names_of(ast.parse("x = " + "+".join(["1"] * 2000))).bound == {"x"}


def library() -> list[Path]:
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def told_by_interpreter(source: str) -> set[str]:
    table = symtable.symtable(source, "file", "exec")
    names = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    todo = list(table.get_children())
    while todo:
        inner = todo.pop()
        names |= {s.get_name() for s in inner.get_symbols() if s.is_declared_global() and s.is_assigned()}
        names |= {s.get_name() for s in inner.get_symbols() if s.is_declared_global() and s.is_imported()}
        todo.extend(inner.get_children())
    return names


def test_the_interpreter_agrees_over_its_library() -> None:
    checked = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in library():
            source = path.read_bytes()
            found = names_of(ast.parse(source), source.decode())
            assert found.bound | found.deleted == told_by_interpreter(source.decode()), path
            checked += 1
    assert checked > 150


def test_the_list_for_others() -> None:
    script = Path(__file__).with_name("names_of.py")
    files = library()[:3]
    run = subprocess.run(
        [sys.executable, "-B", script],
        input="".join(f"{path}\n" for path in files) + "/no/such/file.py\n",
        capture_output=True,
        text=True,
        check=True,
    )
    lists = [json.loads(line) for line in run.stdout.splitlines()]
    assert lists == [sorted(names_of(ast.parse(path.read_bytes())).bound) for path in files] + [None]
