//! Machines beside a session: what differs between two cells, what comes out another time, one cell under many settings.

use serde_json::Value;

use crate::homes::Home;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_difference_is_told_by_name() {
    let home = Home::new();
    home.cell("t", "x = 1; same = [1]; l = [1, 2]; gone = {'a': 1}")
        .says("");
    home.cell("t", "x = 'now text'; del gone; y = 2.5").says("");
    home.cell("t", "l.append(3); same = [1]").says("");
    let told = home.command(&["diff", "t@1", "t@3"]);
    assert_eq!(told.exit(), 0, "{told}");
    let lines: Vec<_> = told
        .text()
        .lines()
        .map(|line| line[..3].to_owned())
        .collect();
    assert_eq!(lines, ["- g", "~ l", "~ x", "+ y"], "{told}");
    assert!(told.text().contains("int (28 B) 1  ->  str"), "{told}");
    // The other way round, and as JSON.
    let back = json(&home.command(&["diff", "t@3", "t@1", "--json"]).text());
    let changes: Vec<_> = back
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            format!(
                "{} {}",
                one["change"].as_str().unwrap(),
                one["name"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        changes,
        ["added gone", "changed l", "changed x", "removed y"]
    );
    assert_eq!(back[1]["after"]["repr"], "[1, 2]");
    let none = home.command(&["diff", "t@3"]);
    assert!(
        none.text().is_empty() && none.stderr.contains("no name differs"),
        "{none}"
    );
    home.command(&["diff", "t@9"]).fails(3, &["no cell 9"]);
    home.command(&["diff", "t@x"]).fails(2, &["say NAME@CELL"]);
    // Nobody has moved, and two sessions can be compared.
    home.command(&["fork", "t", "u", "--at", "2"])
        .says("u begins at t@2\n");
    home.cell("u", "z = 1").says("");
    let across = home.command(&["diff", "t", "u"]);
    assert!(
        across.text().starts_with("~ l") && across.text().contains("+ z"),
        "{across}"
    );
}

#[test]
fn what_is_deterministic_comes_out_again() {
    let home = Home::new();
    home.cell("t", "import random; random.seed(1); x = random.random(); x");
    home.cell("t", "print('é', x)\n1/0");
    home.cell("t", "def f(n):\n    return n * 2\nf(21)")
        .says("42\n");
    let again = home.command(&["replay", "t"]);
    again.says("3 cells, 0 came out otherwise\n");
    home.cell("t", "import os; os.urandom(4)");
    let again = home.command(&["replay", "t", "--json"]);
    assert_eq!(again.exit(), 1, "{again}");
    let cells = json(&again.text());
    assert_eq!(cells[2]["changes"], Value::Array(Vec::new()));
    assert_eq!(cells[3]["changes"][0]["part"], "result");
    home.command(&["replay", "t@3"])
        .says("3 cells, 0 came out otherwise\n");
    home.command(&["replay", "t", "--on", "nothing"])
        .fails(3, &["nothing"]);
    assert_eq!(home.log("t").len(), 4);
}

#[test]
fn one_cell_under_many_settings() {
    let home = Home::new();
    home.cell("t", "x = 10").says("");
    let code = "print(k)\nx * k if k != 3 else 1 / 0";
    let args = [
        "sweep",
        "t",
        "-c",
        code,
        "--set",
        "k=[1, 3, 4, 2]",
        "--jobs",
        "2",
    ];
    let told = json(
        &home
            .command(&[&args[..], &["--json", "--promote", "max"]].concat())
            .text(),
    );
    let column = |name: &str| -> Vec<String> {
        let rows = told.as_array().unwrap();
        rows.iter().map(|row| row[name].to_string()).collect()
    };
    assert_eq!(column("result"), ["\"10\"", "null", "\"40\"", "\"20\""]);
    assert_eq!(
        column("status"),
        ["\"ok\"", "\"error\"", "\"ok\"", "\"ok\""]
    );
    assert_eq!(column("is_promoted"), ["false", "false", "true", "false"]);
    // The session went to the best, and the others are branches of it.
    home.cell("t", "print(k, x)").says("4 10\n");
    let tips = json(&home.command(&["branches", "t", "--json"]).text());
    assert_eq!(tips.as_array().unwrap().len(), 4);
    let other = told[3]["cell"].to_string();
    home.command(&["goto", "t", &other]);
    home.cell("t", "print(k, x)").says("2 10\n");
}

#[test]
fn settings_combine_and_need_no_literals() {
    let home = Home::new();
    home.cell("t", "x = 10").says("");
    let table = home.command(&[
        "sweep",
        "t",
        "-c",
        "f(x, n)",
        "--set",
        "f=[max, min]",
        "--set",
        "n=range(9, 12, 2)",
    ]);
    let text = table.text();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        ["f", "n", "RESULT", "STATUS", "MS", "CELL"],
        "{table}"
    );
    assert_eq!(rows.len(), 5, "{table}");
    let expected = [("9", "10"), ("11", "11"), ("9", "9"), ("11", "10")];
    for (row, (n, result)) in rows[1..].iter().zip(expected) {
        assert_eq!(
            row[row.len() - 5..row.len() - 2],
            [n, result, "ok"],
            "{table}"
        );
    }
    let before = home.log("t").len();
    home.command(&["sweep", "t", "-c", "1", "--set", "k=1/0"])
        .fails(2, &["ZeroDivisionError"]);
    home.command(&["sweep", "t", "-c", "1", "--set", "k=[]"])
        .fails(2, &["0 settings"]);
    home.command(&["sweep", "t", "-c", "1", "--set", "2k=[1]"])
        .fails(2, &["NAME=VALUES"]);
    home.command(&["sweep", "t", "-c", "1"])
        .fails(2, &["nothing to try"]);
    assert_eq!(home.log("t").len(), before);
}

#[test]
fn cells_are_found_by_their_words() {
    let home = Home::new();
    home.cell("t", "needle = 1").says("");
    home.cell("t", "print('hay')").says("hay\n");
    home.cell("t", "print('nee' + 'dle')").says("needle\n");
    let found = json(
        &home
            .command(&["log", "t", "--json", "--grep", "ne+dle"])
            .text(),
    );
    let numbers: Vec<_> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|cell| cell["cell"].as_u64())
        .collect();
    assert_eq!(numbers, [Some(1), Some(3)]);
    home.command(&["log", "t", "--grep", "("])
        .fails(2, &["--grep ("]);
    home.command(&["fork", "t", "u", "--count", "3"])
        .says("u-1 begins at t@3\nu-2 begins at t@3\nu-3 begins at t@3\n");
    home.cell("u-2", "print(needle)").says("1\n");
}
