"""Sums of values: equal for equal content, other for other content, none where nothing can be told."""

import pytest
from conftest import Speaker

SAME = [
    ("[1, 'a', None]", "[1, 'a', None]"),
    ("{'k': (1, 2.5)}", "dict(k=(1, 2.5))"),
    ("{3, 'x', (1,)}", "set([(1,), 'x', 3])"),
    ("numpy.arange(12).reshape(3, 4)", "numpy.arange(24).reshape(3, 8)[:, :4] * 0 + numpy.arange(12).reshape(3, 4)"),
    ("numpy.arange(6).reshape(2, 3).T.copy()", "numpy.arange(6).reshape(2, 3).T"),
    (
        "pandas.DataFrame({'a': [1, 2], 'b': ['x', None]})",
        "pandas.DataFrame({'b': ['x', None], 'a': [1, 2]})[['a', 'b']]",
    ),
    ("pandas.Series([1.5, None], name='s')", "pandas.Series([1.5, float('nan')], name='s')"),
    ("pyarrow.table({'a': [1, 2]})", "pyarrow.table({'a': [0, 1, 2, 3]}).slice(1, 2)"),
    ("lambda x: x + 1", "lambda x: x + 1"),
    ("'\\ud800'", "chr(0xd800)"),
]
OTHER = [
    ("1", "True"),
    ("1", "1.0"),
    ("'1'", "b'1'"),
    ("['ab', 'c']", "['a', 'bc']"),
    ("[1, [2]]", "[1, 2]"),
    ("[[], []]", "[[[]]]"),
    ("{'a': 1}", "{'a': 2}"),
    ("numpy.zeros(4)", "numpy.zeros((2, 2))"),
    ("numpy.zeros(2)", "numpy.zeros(4, dtype='f4')"),
    ("pandas.DataFrame({'a': [1, 2]})", "pandas.DataFrame({'a': [1, 3]})"),
    ("pandas.DataFrame({'a': [1, 2]})", "pandas.DataFrame({'b': [1, 2]})"),
    ("pandas.DataFrame({'a': [1, 2]})", "pandas.DataFrame({'a': [1, 2]}, index=[5, 6])"),
    ("pandas.DataFrame({'a': ['x']})", "pandas.DataFrame({'a': ['y']})"),
    ("lambda x: x + 1", "lambda x: x + 2"),
    ("(lambda n: lambda: n)(1)", "(lambda n: lambda: n)(2)"),
    ("datetime.date(2020, 1, 1)", "datetime.date(2020, 1, 2)"),
]
IMPORTS = "import datetime, numpy, pandas, pyarrow"


def sums(runner: Speaker) -> dict[str, str | None]:
    found = runner.ask(op="variables", digest=True, id="sums")["variables"]
    return {entry["name"]: entry.get("digest") for entry in found}


def test_equal_values_have_equal_sums(runner: Speaker) -> None:
    runner.ask(code=IMPORTS)
    for number, pair in enumerate(SAME):
        for side, code in zip("ab", pair, strict=True):
            assert runner.ask(code=f"{side}{number} = {code}")["error"] is None
    found = sums(runner)
    for number, pair in enumerate(SAME):
        assert found[f"a{number}"] is not None, pair
        assert found[f"a{number}"] == found[f"b{number}"], pair


def test_other_values_have_other_sums(runner: Speaker) -> None:
    runner.ask(code=IMPORTS)
    for number, pair in enumerate(OTHER):
        for side, code in zip("ab", pair, strict=True):
            assert runner.ask(code=f"{side}{number} = {code}")["error"] is None
    found = sums(runner)
    for number, pair in enumerate(OTHER):
        assert found[f"a{number}"] is not None, pair
        assert found[f"a{number}"] != found[f"b{number}"], pair


def test_a_change_inside_is_seen(runner: Speaker) -> None:
    code = "class P:\n    def __init__(self): self.n = [1]\n    def f(self): return 1\np = P(); l = [p]; l.append(l)"
    runner.ask(code=code)
    before = sums(runner)
    assert None not in before.values()
    assert sums(runner) == before
    runner.ask(code="p.n.append(2)")
    after = sums(runner)
    assert {name for name in after if after[name] != before[name]} == {"p", "l"}
    runner.ask(code="P.f = lambda self: 2")
    assert {name for name in after if sums(runner)[name] != after[name]} == {"P"}


@pytest.mark.parametrize("value", ["open('/dev/null')", "(i for i in range(3))", "deep()"])
def test_what_has_no_sum(runner: Speaker, value: str) -> None:
    runner.ask(code="def deep():\n    d = []\n    for _ in range(100000): d = [d]\n    return d")
    assert runner.ask(code=f"v = {value}")["error"] is None
    assert sums(runner)["v"] is None
    assert runner.run("1") == 1


def test_nobody_who_does_not_ask_gets_one(runner: Speaker) -> None:
    runner.ask(code="x = 1")
    assert "digest" not in runner.ask(op="variables", id="v")["variables"][0]
