//! Measures what a terminal waits for: `cargo run --profile fast -p vmrepl-syntax --example how_fast`.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use vmrepl_syntax::{completeness, names, spans};

const CELL: &str = r#"import json
from pathlib import Path
def load(path, *, strict=True):
    """Reads one file."""
    with Path(path).open() as file:
        rows = [json.loads(line) for line in file if line.strip()]
    if strict and not all("id" in row for row in rows):
        raise ValueError(f"{path}: {len(rows)} rows, some without id")
    return {row["id"]: row for row in rows}
table = load("rows.json", strict=False)
"#;

/// The median of many runs.
fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..2001)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let long = CELL.repeat(100);
    for (name, cell) in [("10 lines", CELL), ("1000 lines", &long)] {
        let names_take = median(|| drop(black_box(names(black_box(cell)))));
        let completeness_takes = median(|| drop(black_box(completeness(black_box(cell)))));
        let spans_take = median(|| drop(black_box(spans(black_box(cell)))));
        println!(
            "{name}: names {names_take:?}, completeness {completeness_takes:?}, spans {spans_take:?}"
        );
    }
}
