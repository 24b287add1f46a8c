//! Sessions whose cells are JavaScript or bash: Node or a shell keeps the names, and all that a session can do is as
//! with Python.

use std::time::Duration;

use serde_json::Value;

use crate::ground::{TEMPLATE, has_template};
use crate::homes::Home;
use crate::process::Run;
use crate::screens::Terminal;
use crate::terminal::own_home;

const JAVASCRIPT: &str = "javascript";
const BASH: &str = "bash";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const ENTER: &str = "\r";

fn run(args: &[&str]) -> Run {
    Run::on(JAVASCRIPT, args)
}

fn home() -> Option<Home> {
    has_template(JAVASCRIPT).then(|| Home::of(JAVASCRIPT))
}

#[test]
fn one_shot_runs_have_values_output_and_exit_codes() {
    if !has_template(JAVASCRIPT) {
        return;
    }
    run(&["-c", "let a = [1, 2].map((n) => n * n); a"])
        .finish()
        .says("[ 1, 4 ]\n");
    let both = run(&["-c", "console.log('out'); console.error('err')"]).finish();
    assert_eq!(
        (both.text().as_str(), both.stderr.as_str()),
        ("out\n", "err\n")
    );
    run(&["-c", "throw new TypeError('bad')"])
        .finish()
        .fails(1, &["Uncaught TypeError: bad", "at <cell 1>:1:7"]);
    assert_eq!(run(&["-c", "process.exit(4)"]).finish().exit(), 4);
    run(&["--timeout", "1", "-c", "for (;;) ;"])
        .finish()
        .fails(124, &["timed out after 1 s"]);
    let args = run(&["-c", "process.argv.slice(1).join()", "a", "b c"]).finish();
    args.says("'-c,a,b c'\n");
    // One by one: a generator that repeats is not hidden by another.
    for source in [
        "Math.random()",
        "crypto.randomUUID()",
        "require('crypto').randomBytes(8).toString('hex')",
    ] {
        let draw = || run(&["-c", source]).finish().text();
        assert_ne!(draw(), draw(), "{source}");
    }
}

#[test]
fn a_session_travels_in_time() {
    let Some(home) = home() else { return };
    home.cell(
        "t",
        "let n = 1; const o = { a: [1] }; function f() { return n }",
    )
    .says("");
    home.cell("t", "n += 1; o.a.push(2); f()").says("2\n");
    home.cell(
        "t",
        "await new Promise((done) => setTimeout(() => done(n), 20))",
    )
    .says("2\n");
    let told = home.command(&["diff", "t@1", "t@3"]);
    let lines: Vec<_> = told.text().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(lines[0].starts_with("~ n  number"), "{told}");
    assert!(lines[1].starts_with("~ o  Object"), "{told}");
    home.command(&["undo", "t", "2"]);
    home.cell("t", "[n, o.a.length]").says("[ 1, 1 ]\n");
    // Two forks of one moment go their own ways, and share no chance.
    for name in ["u", "v"] {
        home.command(&["fork", "t", name, "--at", "2"]);
    }
    let draw = |name| home.cell(name, "[Math.random(), n]").text();
    let (one, other) = (draw("u"), draw("v"));
    assert!(one.ends_with(", 2 ]\n"), "{one}");
    assert_ne!(one, other);
    let tried = home.command(&[
        "sweep",
        "t",
        "-c",
        "n * lr",
        "--set",
        "lr=[0.5, 4]",
        "--json",
    ]);
    let tried: Value = serde_json::from_str(&tried.text()).unwrap();
    let results: Vec<_> = tried
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["result"])
        .collect();
    assert_eq!(results, ["0.5", "4"]);
    let replayed = home.command(&["replay", "t"]);
    assert!(
        replayed.text().contains("0 came out otherwise"),
        "{replayed}"
    );
}

#[test]
fn a_session_becomes_a_script_and_a_notebook() {
    let Some(home) = home() else { return };
    home.cell("t", "let n = 20").says("");
    home.cell("t", "!echo a command").says("a command\n");
    home.cell("t", "n + 1").says("21\n");
    let script = home.command(&["export", "t"]).text();
    assert_eq!(
        script,
        "// session t, template javascript\n\n// %% [1]\nlet n = 20\n\n// %% [2]\n// !echo a command\n\n\
         // %% [3]\nn + 1\n"
    );
    let folder = crate::ground::folder();
    let path = folder.path().join("t.ipynb");
    home.command(&["export", "t", path.to_str().unwrap()]);
    let notebook: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(notebook["metadata"]["kernelspec"]["language"], JAVASCRIPT);
    let output = &notebook["cells"][2]["outputs"][0];
    assert_eq!(output["data"]["text/plain"], "21");
}

#[test]
fn whatever_a_cell_does_the_names_from_before_are_there() {
    let Some(home) = home() else { return };
    home.cell("t", "let n = 1").says("");
    let cases: [(&str, &[&str], &str); 5] = [
        ("n = 2; for (;;) ;", &["--timeout", "1"], "timeout"),
        (
            "n = 3; await null; for (;;) ;",
            &["--timeout", "1"],
            "timeout",
        ),
        (
            "n = 4; const all = []; for (;;) all.push(Buffer.alloc(10_000_000, 1))",
            &[],
            "memory_exceeded",
        ),
        (
            "n = 5; process.kill(process.pid, 'SIGKILL')",
            &[],
            "runner_lost",
        ),
        (
            "n = 6; for (;;) console.log('x'.repeat(10000))",
            &["--limit", "output=1M", "--limit", "time=20"],
            "output_exceeded",
        ),
    ];
    let mut kept = "1".to_owned();
    for (code, options, status) in cases {
        let ended = home
            .run(&[&["-s", "t", "--json"], options, &["-c", code]].concat())
            .deadline(Duration::from_secs(120))
            .finish();
        let told: Value = serde_json::from_str(ended.text().lines().last().unwrap_or("null"))
            .unwrap_or_else(|error| panic!("{error}: {ended}"));
        assert_eq!(told["status"], status, "{code}: {ended}");
        // Only what an interrupt ended keeps what it did before.
        if told["stopped_by"] == "interrupt" {
            kept = code[4..5].to_owned();
        }
        home.cell("t", "n").says(&format!("{kept}\n"));
    }
}

#[test]
fn a_shell_travels_in_time() {
    if !has_template(BASH) {
        return;
    }
    let home = Home::of(BASH);
    home.cell("t", "x=1; f() { echo f $x; }; echo kept > ~/note; cd /tmp")
        .says("");
    home.cell("t", "x=2; f; pwd; rm ~/note").says("f 2\n/tmp\n");
    home.cell("t", "cat ~/note").fails(1, &["No such file"]);
    let told = home.command(&["diff", "t@1", "t@2"]);
    assert!(told.text().starts_with("~ x  string"), "{told}");
    home.command(&["undo", "t", "2"]);
    home.cell("t", "f; cat ~/note").says("f 1\nkept\n");
    let tried = home.command(&[
        "sweep",
        "t",
        "-c",
        "echo \"<$n>\"",
        "--set",
        "n=1 'a b' 'c\"d\\'",
        "--json",
    ]);
    let tried: Value = serde_json::from_str(&tried.text()).unwrap();
    let all = tried.as_array().unwrap().iter();
    let outputs: Vec<_> = all.map(|one| &one["output"]).collect();
    assert_eq!(outputs, ["<1>\n", "<a b>\n", "<c\"d\\>\n"]);
    // Copies of one moment share no chance.
    for name in ["u", "v"] {
        home.command(&["fork", "t", name]);
    }
    let draw = |name| home.cell(name, "echo $RANDOM $RANDOM $RANDOM").text();
    assert_ne!(draw("u"), draw("v"));
    // What a cell does to the shell costs the cell alone.
    let timeout: &[&str] = &["--timeout", "1"];
    let cases: [(&str, &[&str], i32); 6] = [
        ("x=3; while :; do :; done", timeout, 124),
        ("x=4; sleep 1000 | cat", timeout, 124),
        ("x=5; exit 7", &[], 7),
        ("x=6; kill -9 $$", &[], 125),
        ("x=7; set -e; false", &[], 125),
        ("x=8; exec true", &[], 125),
    ];
    for (code, options, exit) in cases {
        let ended = home
            .run(&[&["-s", "t"], options, &["-c", code]].concat())
            .finish();
        assert_eq!(ended.exit(), exit, "{code}: {ended}");
        let x = home.cell("t", "echo $x").text();
        let is_kept = x == code[2..3].to_owned() + "\n";
        assert_eq!(is_kept, exit < 125 && exit > 0, "{code}: x is {x}");
    }
}

#[test]
fn a_shell_at_a_terminal() {
    if !has_template(BASH) {
        return;
    }
    let own = own_home();
    let mut terminal = Terminal::of(own.path(), &["-l", BASH]);
    terminal.line(1, "for n in 1 2; do");
    terminal.keys("echo \"<$n>\"");
    terminal.keys(ENTER);
    terminal.keys("done");
    terminal.keys(ENTER);
    terminal.shows("<2>\r\n");
    terminal.line(2, "echo 'be''gun'; sleep 1000");
    terminal.shows("begun\r\n");
    terminal.keys(CTRL_C);
    terminal.shows("KeyboardInterrupt");
    terminal.line(3, "false");
    terminal.line(4, "echo \"it was $?\"");
    terminal.shows("it was 1");
    terminal.shows("[5]> ");
    terminal.keys("cat /etc/hostn\t");
    terminal.shows("/etc/hostname");
    terminal.keys(ENTER);
    terminal.shows("[6]> ");
    terminal.keys(CTRL_D);
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_session_at_a_terminal() {
    if !has_template(JAVASCRIPT) {
        return;
    }
    let own = own_home();
    let mut terminal = Terminal::of(own.path(), &["-l", JAVASCRIPT]);
    terminal.line(1, "let x = 5 // five");
    terminal.line(2, "function g(a) {");
    terminal.keys("return a * 2");
    terminal.keys(ENTER);
    terminal.keys("}");
    terminal.keys(ENTER);
    terminal.line(3, "g(x)");
    terminal.shows("10\r\n");
    terminal.line(4, "`a");
    terminal.keys("b`");
    terminal.keys(ENTER);
    terminal.shows("'a\\nb'");
    terminal.line(5, "console.log('be' + 'gun'); for (;;) ;");
    terminal.shows("begun\r\n");
    terminal.keys(CTRL_C);
    terminal.shows("KeyboardInterrupt");
    terminal.line(6, "x = )");
    terminal.shows("SyntaxError");
    terminal.line(7, ":vars");
    terminal.shows("number");
    terminal.line(7, "g?");
    terminal.shows("return a * 2");
    terminal.shows("[7]> ");
    terminal.keys("x.toF\t");
    terminal.shows("x.toFixed");
    terminal.keys("(1)\r");
    terminal.shows("'5.0'");
    terminal.shows("[8]> ");
    terminal.keys(CTRL_D);
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_language_without_sessions_says_which_have_them() {
    let own = own_home();
    let mut terminal = Terminal::of(own.path(), &["-l", "cpp"]);
    terminal.shows("sessions are python, javascript or bash");
    assert_eq!(terminal.ends(), 2);
}

#[test]
fn cells_of_another_language_are_refused_before_anything_is_made() {
    let Some(home) = home() else {
        return;
    };
    home.0.add(TEMPLATE);
    let words = format!("the cells of template {TEMPLATE:?} are python, not");
    let more: [&[&str]; 2] = [&[], &["-s", "new"]];
    for (language, more) in [
        (JAVASCRIPT, more[0]),
        (BASH, more[0]),
        (JAVASCRIPT, more[1]),
    ] {
        let args = [&["-l", language, "--template", TEMPLATE], more].concat();
        let mut terminal = Terminal::of(home.0.home(), &args);
        terminal.shows(&words);
        assert_eq!(terminal.ends(), 2);
    }
    let sessions = home.command(&["sessions", "--json"]);
    sessions.says("[]\n");
    home.cell("work", "1 + 1").says("2\n");
    home.command(&["replay", "work", "--on", TEMPLATE])
        .fails(2, &[&words, "javascript"]);
    home.command(&["doctor", "--copies", "--template", JAVASCRIPT])
        .fails(2, &["are javascript, not python"]);
    let mut terminal = Terminal::of(home.0.home(), &["-l", BASH, "-s", "work"]);
    terminal.shows("the cells of session \"work\" are javascript, not bash");
    assert_eq!(terminal.ends(), 2);
}
