"""Tables and pictures, with the real libraries."""

import json

import pytest
from conftest import REQUEST, Speaker

MAKERS = {
    "pandas": "import pandas as pd; df = pd.DataFrame({'a': range(20), 'b': ['x'] * 20})",
    "pyarrow": "import pyarrow as pa; df = pa.table({'a': list(range(20)), 'b': ['x'] * 20})",
    "polars": "import polars as pl; df = pl.DataFrame({'a': range(20), 'b': ['x'] * 20})",
    "duckdb": "import duckdb; df = duckdb.sql(\"select i as a, 'x' as b from range(20) t(i)\")",
}


@pytest.mark.parametrize("library", MAKERS)
def test_tables_are_told_with_ten_rows(runner: Speaker, library: str) -> None:
    answer = runner.ask(code=MAKERS[library], show_tables=True)
    assert answer["error"] is None
    (table,) = answer["tables"]
    assert (table["name"], table["row_count"], table["is_refreshing"]) == ("df", 20, False)
    assert [c["name"] for c in table["columns"]] == ["a", "b"]
    assert all(c["type"] for c in table["columns"])
    assert len(table["preview"].splitlines()) == 11
    assert runner.ask(code="df", id="r")["result"]["data"]["application/vnd.vmrepl.table+json"]["row_count"] == 20


def test_the_columns_come_before_the_rows(runner: Speaker) -> None:
    answer = runner.ask(code=MAKERS["pandas"], show_tables=True, show_table_meta=True)
    assert answer["tables"][0]["preview"].startswith("a  int64\nb  ")


def test_figures_become_pictures(runner: Speaker) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nNone"
    runner.send(REQUEST, json.dumps({"code": code, "id": "p", "stream": True}).encode())
    events: list[dict[str, object]] = []
    answer = runner.answer(events)
    assert answer["exit_code"] == 0
    (event,) = [e for e in events if e["type"] == "display"]
    assert str(event["data"]["image/png"]).startswith("iVBOR")  # type: ignore[index]
