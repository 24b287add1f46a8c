"""Completion, inspection, completeness, the list of names."""

import pytest
from conftest import Speaker

SETUP = """
import collections, os.path
from decimal import Decimal
value = {'alpha': 1, "be'ta": {'gamma': [1]}}
text = 'abc'
_private = 1
class Thing:
    "A thing."
    __slots__ = ('slot',)
    @property
    def danger(self): raise SystemExit('called')
    @property
    def deep(self): return 'text'
    def method(self, first, *, second=2):
        "Does it."
        return first
    @staticmethod
    def free(): pass
thing = Thing()
def func(arg, *, word=1):
    'Doc.'
    return arg
class Own:
    def __getattr__(self, name): raise AttributeError(name)
    def __dir__(self): return ['one', 'two']
own = Own()
"""

COMPLETIONS = {
    "val": ["value"],
    "thi": ["thing"],
    "thing.": ["danger", "deep", "free", "method", "slot"],
    "x = thing.me": ["method"],
    "thing.deep.isd": ["isdecimal", "isdigit"],
    "Thing().me": ["method"],
    "text.upp": ["upper"],
    "'lit'.upp": ["upper"],
    "[1].app": ["append"],
    "{}.setd": ["setdefault"],
    "value['be\\'ta'].setd": ["setdefault"],
    "value['al": ["alpha"],
    'value["': ["alpha", "be'ta"],
    "value['": ["alpha", "be\\'ta"],
    "value[\"be'ta\"]['g": ["gamma"],
    "func(wo": ["word="],
    "func(1, wo": ["word="],
    "thing.method(sec": ["second="],
    "own.": ["one", "two"],
    "_priv": ["_private"],
    "whi": ["while"],
    "collections.Ordered": ["OrderedDict"],
    "os.path.isd": ["isdir"],
    "import collections.ab": ["abc"],
    "from collections.abc import Itera": ["Iterable", "Iterator"],
    "from decimal import (Decimal, Roun": ["Rounded"],
    "import wave, sched": ["sched"],
    "from sched import sched": ["scheduler"],
    "from sched im": ["import"],
    "from xml.dom import mini": ["minicompat", "minidom"],
    "1.re": [],
    "nothing.": [],
    "thing.danger.x": [],
}


def test_completions(runner: Speaker) -> None:
    assert runner.ask(code=SETUP)["error"] is None
    for code, expected in COMPLETIONS.items():
        answer = runner.ask(op="complete", code=code, id="q")
        assert [m["text"] for m in answer["matches"]] == expected, code
        assert answer["cursor_end"] == len(code)
        assert "busy" not in answer
    assert "wave" not in runner.run("import sys; [m for m in ('wave', 'sched') if m in sys.modules]")


def test_where_completions_go(runner: Speaker) -> None:
    runner.ask(code="value = {}")
    answer = runner.ask(op="complete", code="é = value.ke + 1", cursor=12)
    assert (answer["cursor_start"], answer["cursor_end"]) == (10, 12)
    (match,) = answer["matches"]
    assert (match["text"], match["type"]) == ("keys", "function")
    kinds = {m["text"]: m["type"] for m in runner.ask(op="complete", code="")["matches"]}
    assert (kinds["value"], kinds["int"], kinds["print"]) == ("instance", "class", "function")
    runner.ask(code="def func(arg, *, word=1): pass")
    (match,) = runner.ask(op="complete", code="fun")["matches"]
    assert match["signature"] == "(arg, *, word=1)"


def test_inspection(runner: Speaker) -> None:
    runner.ask(code=SETUP)

    def told(code: str, **request: int) -> str:
        answer = runner.ask(op="inspect", code=code, **request)
        assert answer["found"] is True
        return str(answer["data"]["text/plain"])

    assert told("func") == "Signature: func(arg, *, word=1)\nType:      function\nFile:      <cell 1>\nDocstring:\nDoc."
    assert "return arg" in told("func", detail=1)
    assert "Does it." in told("thing.method(1, ", cursor=15)
    assert told("value['alpha']") == "Type:      int\nValue:     1\nDocstring:\n" + int.__doc__.strip()  # type: ignore[union-attr]
    assert "class Thing:" in told("Thing", detail=1)
    assert "Length:    3" in told("text")
    assert "decimal.py" in told("Decimal")
    assert runner.ask(op="inspect", code="nothing") == {"exit_code": 0, "found": False, "data": {}}
    assert runner.ask(op="inspect", code="thing.danger")["found"] is False
    assert runner.ask(op="inspect", code="")["found"] is False


COMPLETENESS = {
    "": ("complete", ""),
    "1 + 1": ("complete", ""),
    "if x:": ("incomplete", "    "),
    "if x:\n    y = 1": ("incomplete", "    "),
    "if x:\n    y = 1\n": ("complete", ""),
    "def f():\n    return 1": ("incomplete", ""),
    "for i in x: print(i)": ("complete", ""),
    "foo(1,": ("incomplete", ""),
    "foo(": ("incomplete", "    "),
    "'''abc": ("incomplete", ""),
    "x = \\": ("incomplete", ""),
    "try:\n    pass": ("incomplete", ""),
    "@decorated": ("incomplete", ""),
    "await x": ("complete", ""),
    "x = = 1": ("invalid", ""),
    "x = 'abc": ("invalid", ""),
    "foo)": ("invalid", ""),
    "'\\d'": ("complete", ""),
}


@pytest.mark.parametrize("code", COMPLETENESS)
def test_completeness(code: str) -> None:
    from vmrepl_runner.completeness import is_complete

    told = is_complete(code)
    assert (told["status"], told["indent"]) == COMPLETENESS[code]


def test_the_list_of_names(runner: Speaker) -> None:
    runner.ask(code=SETUP + "import numpy as np\narray = np.zeros((3, 4))\nlong = 'x' * 9999\nnumber = 1 << 99999")
    listed = {v["name"]: v for v in runner.ask(op="variables")["variables"]}
    assert set(listed) == {
        *("Decimal", "Own", "Thing", "array", "func", "long", "number", "own", "text", "thing", "value")
    }
    assert listed["text"] | {"size_bytes": 0} == {"name": "text", "type": "str", "repr": "'abc'", "size_bytes": 0}
    assert (listed["array"]["shape"], listed["array"]["size_bytes"]) == ([3, 4], 96)
    assert all(len(v["repr"]) <= 100 for v in listed.values())
    assert listed["value"]["repr"].startswith("{'alpha': 1")
