"""Tables, pictures and rich values, with the real libraries."""

import base64

import pytest
from conftest import Speaker

MAKERS = {
    "pandas": "import pandas as pd; df = pd.DataFrame({'a': range(20), 'b': ['x'] * 20})",
    "pyarrow": "import pyarrow as pa; df = pa.table({'a': list(range(20)), 'b': ['x'] * 20})",
    "batch": "import pyarrow as pa; df = pa.record_batch({'a': list(range(20)), 'b': ['x'] * 20})",
    "polars": "import polars as pl; df = pl.DataFrame({'a': range(20), 'b': ['x'] * 20})",
    "duckdb": "import duckdb; df = duckdb.sql(\"select i as a, 'x' as b from range(20) t(i)\")",
    "subclass": "import pandas as pd\nclass Mine(pd.DataFrame): pass\ndf = Mine({'a': range(20), 'b': ['x'] * 20})",
}
TABLE = "application/vnd.vmrepl.table+json"


@pytest.mark.parametrize("library", MAKERS)
def test_tables_are_told_with_ten_rows(runner: Speaker, library: str) -> None:
    answer = runner.ask(code=MAKERS[library], show_tables=True)
    assert answer["error"] is None
    (table,) = answer["tables"]
    assert (table["name"], table["row_count"], table["is_refreshing"]) == ("df", 20, False)
    assert [c["name"] for c in table["columns"]] == ["a", "b"]
    assert all(c["type"] for c in table["columns"])
    assert table["preview"].splitlines()[:3] == ["a  b", "0  x", "1  x"]
    assert len(table["preview"].splitlines()) == 11
    assert runner.ask(code="df", id="r")["result"]["data"][TABLE]["row_count"] == 20
    assert TABLE not in runner.ask(code="[df]", id="s")["result"]["data"]
    streamed = runner.ask(code="e = df; f = 1", id="t", stream=True, show_tables=True)
    assert [event["table"]["name"] for event in runner.events if event["type"] == "table"] == ["e"]
    assert streamed["tables"][0]["name"] == "e"
    (entry,) = [v for v in runner.ask(op="variables", id="v")["variables"] if v["name"] == "df"]
    assert entry.get("row_count", 20) == 20
    assert entry["repr"] == ("2 columns" if library == "duckdb" else "20 rows x 2 columns")


def test_what_is_no_table(runner: Speaker) -> None:
    code = "import pandas as pd, polars as pl; s = pd.Series([1])\nlazy = pl.DataFrame({'a': [1]}).lazy(); t = type"
    assert runner.ask(code=code, show_tables=True)["tables"] == []


def test_the_columns_come_before_the_rows(runner: Speaker) -> None:
    answer = runner.ask(code=MAKERS["pandas"], show_tables=True, show_table_meta=True)
    lines = answer["tables"][0]["preview"].splitlines()
    assert lines[0] == "a  int64"
    assert lines[1].startswith("b  ")
    assert lines[2:4] == ["", "a  b"]


def test_previews_of_odd_tables(runner: Speaker) -> None:
    code = (
        "import pandas as pd\n"
        "wide = pd.DataFrame([[1] * 60])\nempty = pd.DataFrame()\n"
        "rows = [['日本', 'a\\nb', None, 1.5], ['é' * 100, '', 'x', -22.25]]\n"
        "odd = pd.DataFrame(rows, columns=['k', 'k', ('t', 1), '数'])\n"
        "grouped = pd.DataFrame({'g': ['u', 'v'], 'n': [1, 2]}).groupby('g').sum()"
    )
    tables = {t["name"]: t for t in runner.ask(code=code, show_tables=True)["tables"]}
    assert tables["odd"]["preview"].splitlines()[1].split("  ")[0] == "日本"
    assert "a\\nb" in tables["odd"]["preview"]
    assert "nan" in tables["odd"]["preview"]
    assert "…" in tables["odd"]["preview"]
    assert tables["wide"]["preview"].endswith("[20 more columns]")
    assert len(tables["wide"]["columns"]) == 60
    assert (tables["empty"]["row_count"], tables["empty"]["preview"]) == (0, "")
    assert tables["grouped"]["preview"].splitlines() == ["g  n", "u  1", "v  2"]


def test_a_relation_is_not_moved_by_its_preview(runner: Speaker) -> None:
    runner.ask(code=MAKERS["duckdb"], show_tables=True)
    assert runner.run("len(df.fetchall())") == 20


def test_figures_become_pictures(runner: Speaker) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nNone"
    assert runner.ask(code=code, id="p", stream=True)["exit_code"] == 0
    (event,) = runner.events
    assert event["type"] == "display"
    assert base64.b64decode(event["data"]["image/png"]).startswith(b"\x89PNG")
    assert runner.run("plt.get_fignums()") == []
    answer = runner.ask(code="fig = plt.figure(); plt.figure(); display(fig); fig", id="q")
    assert "image/png" in answer["result"]["data"]
    assert len(answer["displays"]) == 2
    # A plain client cannot see them: they stay for its next cell.
    assert runner.run("plt.figure(7); plt.get_fignums()") == [7]
    assert len(runner.ask(code="1 / 0", id="r")["displays"]) == 1


RICH = """
class Rich:
    def __repr__(self): return 'plain'
    def _repr_html_(self): return '<b>h</b>'
    def _repr_png_(self): return b'png'
    def _repr_json_(self): return {'n': [1]}
    def _repr_latex_(self): raise ValueError('no')
    def _repr_markdown_(self): return None
    def _repr_svg_(self): return 'x' * (5 << 20)
class Whole:
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {'text/html': 'w', 'application/json': float('nan'), 'image/gif': b'g'}, {'text/html': {'k': 1}}
"""


def test_rich_values(runner: Speaker) -> None:
    runner.ask(code=RICH)
    answer = runner.ask(code="Rich()", id="r")
    assert answer["result"]["data"] == {
        "text/plain": "plain",
        "text/html": "<b>h</b>",
        "image/png": "cG5n",
        "application/json": {"n": [1]},
    }
    assert "_repr_latex_ raised ValueError" in answer["stderr"]
    assert "image/svg+xml was left out" in answer["stderr"]
    answer = runner.ask(code="Whole()", id="w")
    assert set(answer["result"]["data"]) == {"text/plain", "text/html", "image/gif"}
    assert answer["result"]["metadata"] == {"text/html": {"k": 1}}
    assert "application/json was left out" in answer["stderr"]
    plain = runner.ask(code="display(Rich(), 2)")
    assert (plain["stdout"], plain["stderr"]) == ("plain\n2\n", "")
    assert runner.ask(code="Rich", id="t")["result"]["data"].keys() == {"text/plain"}
