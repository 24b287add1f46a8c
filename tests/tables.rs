//! Tables and pictures of the data stack, as a run prints them and as JSON. What each library's tables
//! look like is in `transcripts/tables.md`.

use serde_json::{Value, json};

use crate::ground::{DATA_TEMPLATE, has_template};
use crate::process::Run;

const FRAME: &str = "import pandas as pd; df = pd.DataFrame({'a': range(20)})";
const TEN_ROWS: &str = "a\n0\n1\n2\n3\n4\n5\n6\n7\n8\n9";

fn run(args: &[&str]) -> Run {
    Run::on(DATA_TEMPLATE, args)
}

fn object(args: &[&str]) -> Value {
    let ended = run(args).finish();
    assert_eq!((ended.exit(), ended.stderr.as_str()), (0, ""), "{ended}");
    serde_json::from_slice(&ended.stdout).unwrap()
}

#[test]
fn json_has_the_tables_that_were_asked_for() {
    if !has_template(DATA_TEMPLATE) {
        return;
    }
    let columns = json!([{ "name": "a", "type": "int64" }]);
    let table = |preview: &str| json!([{ "name": "df", "row_count": 20, "is_refreshing": false, "columns": columns, "preview": preview }]);
    let with = |option: &str| object(&[option, "--json", "-c", FRAME])["tables"].clone();
    assert_eq!(with("--show-tables"), table(TEN_ROWS));
    let meta = format!("a  int64\n\n{TEN_ROWS}");
    assert_eq!(with("--show-table-meta"), table(&meta));
    assert_eq!(object(&["--json", "-c", FRAME])["tables"], json!([]));
}

#[test]
fn tables_print_with_name_and_size() {
    if !has_template(DATA_TEMPLATE) {
        return;
    }
    let size = "[20 rows x 1 column, the first 10 shown]";
    run(&["--show-tables", "-c", FRAME])
        .finish()
        .says(&format!("df =\n{TEN_ROWS}\n{size}\n"));
    run(&["--show-table-meta", "-c", FRAME])
        .finish()
        .says(&format!("df =\na  int64\n\n{TEN_ROWS}\n{size}\n"));
    run(&["-c", FRAME]).finish().says("");
}

#[test]
fn a_value_that_is_a_table_prints_as_one() {
    if !has_template(DATA_TEMPLATE) {
        return;
    }
    let value = format!("{FRAME}\ndf");
    run(&["-c", &value]).finish().says(&format!(
        "{TEN_ROWS}\n[20 rows x 1 column, the first 10 shown]\n"
    ));
    run(&["-c", &format!("{value}.head(1)")])
        .finish()
        .says("a\n0\n[1 row x 1 column]\n");
}

#[test]
fn a_deleted_table_is_no_table() {
    if !has_template(DATA_TEMPLATE) {
        return;
    }
    let code = format!("{FRAME}\ndel df");
    run(&["--show-tables", "-c", &code]).finish().says("");
}

#[test]
fn a_figure_is_a_png() {
    if !has_template(DATA_TEMPLATE) {
        return;
    }
    let code = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()";
    let object = object(&["--json", "-c", code]);
    let displays = object["displays"].as_array().unwrap();
    assert_eq!(displays.len(), 1, "{object}");
    let data = &displays[0]["data"];
    let png = data["image/png"].as_str().unwrap();
    // Base64 of what each PNG starts with.
    assert!(png.starts_with("iVBORw0KGgo"), "{data}");
    assert_eq!(data["text/plain"], "<Figure size 640x480 with 1 Axes>");
    run(&["-c", code])
        .finish()
        .says("<Figure size 640x480 with 1 Axes>\n");
}
