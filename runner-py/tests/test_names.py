"""Every form that binds a name, and those that do not."""

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "runner"))
from vmrepl_runner.names import names_of

FORMS = {
    "a = b.c = d[0] = 1": "a",
    "a: int": "a",
    "a: int = 1": "a",
    "a += 1": "a",
    "(a, [b, *c]) = x": "a b c",
    "(a := 1)": "a",
    "[b := i for i in x]": "b",
    "[i for i in x]": "",
    "for a, b in x: c = 1": "a b c",
    "with x as a, y as (b, c): pass": "a b c",
    "import a.b, c.d as e": "a e",
    "from x import a, b as c": "a c",
    "def f(p, q=(d := 1)): l = 1": "f d",
    "async def f(): pass": "f",
    "class C(metaclass=(m := M)): x = 1": "C m",
    "lambda p: (q := 1)": "",
    "try: pass\nexcept E as e: pass": "e",
    "match x:\n  case [a, *b]: pass\n  case {'k': c, **d}: pass\n  case P(x=e) as f: pass": "a b c d e f",
    "def f():\n  global g, h\n  g = 1\n  l = 2": "f g",
    "def f():\n  def k():\n    global g\n    g = 1": "f g",
    "class C:\n  global g\n  def g(self): pass": "C g",
    "if x:\n  a = 1\nelse:\n  b = 2": "a b",
    "while (n := f()): pass": "n",
    "del a": "",
}


@pytest.mark.parametrize("code", FORMS)
def test_forms(code: str) -> None:
    assert sorted(names_of(ast.parse(code)).bound) == sorted(FORMS[code].split())


def test_deletes_and_stars() -> None:
    names = names_of(ast.parse("del a, b.c, (d, e)\nfrom x import *"))
    assert list(names.deleted) == ["a", "d", "e"]
    assert names.star
