//! The REPL as a user has it: at a terminal, with keys.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::tcgetattr;

use crate::ground::{DEADLINE, folder, home};
use crate::process::Run;
use crate::processes::engine_child;
use crate::screens::Terminal;

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_R: &str = "\x12";
const TAB: &str = "\t";
const ENTER: &str = "\r";

/// A home of its own, with the tests' templates: history and pictures are the user's.
pub(crate) fn own_home() -> tempfile::TempDir {
    let own = folder();
    for name in ["store", "images"] {
        std::os::unix::fs::symlink(home().join(name), own.path().join(name)).unwrap();
    }
    own
}

#[test]
fn a_session_at_a_terminal() {
    let own = own_home();
    let mut terminal = Terminal::open(own.path(), &[]);
    terminal.line(1, "6 * 7");
    terminal.shows("42\r\n");
    // A block goes on until an empty line; the editor indents.
    terminal.line(2, "for n in range(3):");
    terminal.keys("print('n' * n, 'is', n)");
    terminal.keys(ENTER);
    terminal.keys(ENTER);
    terminal.shows("nn is 2\r\n");
    terminal.line(3, "name = input('who? ')");
    terminal.shows("who? ");
    terminal.keys("Ada\r");
    terminal.line(4, "name, _");
    terminal.shows("('Ada', 42)");
    terminal.line(5, "print('be' + 'gun'); any(False for _ in iter(int, 1))");
    terminal.shows("begun\r\n");
    terminal.keys(CTRL_C);
    terminal.shows("KeyboardInterrupt");
    terminal.line(6, "name + '!'");
    terminal.shows("'Ada!'");
    terminal.line(7, "1 +* 2");
    terminal.shows("SyntaxError");
    terminal.line(8, "name.upp");
    terminal.shows("AttributeError");
    terminal.shows("[9]> ");
    terminal.keys("name.upp");
    terminal.keys(TAB);
    terminal.shows("name.upper");
    terminal.keys("()\r");
    terminal.shows("'ADA'");
    terminal.shows("[10]> ");
    // The newest line with these letters.
    terminal.keys(CTRL_R);
    terminal.keys("6 *");
    terminal.shows("6 * 7");
    terminal.keys(ENTER);
    terminal.shows("42\r\n");
    terminal.line(11, ":nonsense");
    terminal.shows(":help");
    terminal.line(11, "import os; os._exit(3)");
    terminal.shows("restore the template afresh?");
    terminal.keys("y\r");
    terminal.line(1, "'name' in globals()");
    terminal.shows("False");
    terminal.shows("[2]> ");
    terminal.keys(CTRL_D);
    assert_eq!(terminal.ends(), 0);

    let history = own.path().join("history");
    let found = if history.is_dir() {
        let mut files = fs::read_dir(&history).unwrap();
        files.next().unwrap().unwrap().path()
    } else {
        history
    };
    assert_eq!(
        found.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    let mut again = Terminal::open(own.path(), &[]);
    again.shows("[1]> ");
    again.keys(CTRL_R);
    again.keys("who?");
    again.shows("name = input('who? ')");
    again.keys(CTRL_C);
    again.shows("[1]> ");
    again.keys(":quit\r");
    assert_eq!(again.ends(), 0);
}

#[test]
fn a_terminal_is_given_back_as_it_was() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let own = own_home();
        let mut terminal = Terminal::open(own.path(), &[]);
        let before = tcgetattr(&terminal.keyboard).unwrap();
        terminal.shows("[1]> ");
        kill_process(Pid::from_child(&terminal.child), signal).unwrap();
        assert_eq!(terminal.ends(), code);
        let after = tcgetattr(&terminal.keyboard).unwrap();
        assert_eq!(after.local_modes, before.local_modes);
        assert_eq!(after.input_modes, before.input_modes);
        assert_eq!(after.output_modes, before.output_modes);
    }
}

#[test]
fn code_asks_at_a_terminal() {
    let own = own_home();
    let code = "import getpass; a = input('a? '); b = getpass.getpass('b? '); print(a + b)";
    let mut terminal = Terminal::open(own.path(), &["-c", code]);
    terminal.shows("a? ");
    terminal.keys("left\r");
    terminal.shows("b? ");
    terminal.keys("right\r");
    terminal.shows("\n");
    terminal.shows("leftright");
    assert!(!terminal.unseen.contains("right"));
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn an_interrupt_at_a_terminal_ends_a_run() {
    let own = own_home();
    let code = "print('be' + 'gun', flush=True)\nwhile True: pass";
    let mut terminal = Terminal::open(own.path(), &["-c", code]);
    terminal.shows("begun");
    terminal.keys(CTRL_C);
    assert_eq!(terminal.ends(), 130);
}

/// A session with a name at a terminal: it travels, and gives its machine back while nobody uses it.
#[test]
fn a_session_travels_and_rests() {
    let own = own_home();
    let mut terminal = Terminal::open(own.path(), &["-s", "t", "--idle", "1"]);
    let type_at = |terminal: &mut Terminal, prompt: &str, line: &str| {
        terminal.shows(prompt);
        terminal.keys(line);
        terminal.keys(ENTER);
        terminal.shows("\n");
    };
    type_at(&mut terminal, "t [1]> ", "x = 1; y = [1]");
    type_at(&mut terminal, "t [2]> ", "x = 2");
    type_at(&mut terminal, "t [3]> ", ":diff");
    terminal.shows("~ x");
    type_at(&mut terminal, "t [3]> ", ":undo");
    terminal.shows("at cell 1");
    let program = terminal.child.id();
    let began = Instant::now();
    while engine_child(program).is_some() {
        assert!(began.elapsed() < DEADLINE, "its machine is kept");
        std::thread::sleep(Duration::from_millis(50));
    }
    type_at(&mut terminal, "t [3]> ", "x = x + 10; print('now', x)");
    terminal.shows("now 11");
    assert!(engine_child(program).is_some());
    type_at(&mut terminal, "t [4]> ", ":branches");
    terminal.shows("2  ok            x = 2");
    terminal.shows("* ");
    type_at(&mut terminal, "t [4]> ", ":switch 2");
    terminal.shows("at cell 2");
    type_at(&mut terminal, "t [4]> ", ":limit output=1M");
    terminal.shows("output=1M");
    type_at(&mut terminal, "t [4]> ", ":keep off");
    terminal.shows("only the last cell");
    type_at(&mut terminal, "t [4]> ", "x += 100");
    type_at(&mut terminal, "t [5]> ", ":history");
    terminal.shows("[  4]  x += 100");
    terminal.shows("t [5]> ");
    terminal.keys(CTRL_D);
    assert_eq!(terminal.ends(), 0);
    // What only the machine had was stored at the end.
    let after = Run::new(["-s", "t", "-c", "print(x)"]).env("VMREPL_HOME", own.path());
    after.finish().says("102\n");
}
