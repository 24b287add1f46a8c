//! Any text at all: nothing panics, and the work does not grow out of bounds.

use std::fs;
use std::ops::Range;

use crate::python;
use proptest::prelude::*;
use vmrepl_syntax::{Completeness, completeness, names, spans};

fn ask_everything(text: &str) {
    std::hint::black_box(names(text));
    if let Completeness::Invalid(fault) = completeness(text) {
        assert!(
            text.get(..fault.offset).is_some(),
            "a fault off the boundaries of {text:?}: {fault:?}"
        );
    }
    check_spans(text);
}

fn check_spans(text: &str) {
    let mut covered = Range::default();
    for span in spans(text) {
        let range = span.range;
        assert!(
            range.start >= covered.end && range.start < range.end,
            "{range:?} after {covered:?} in {text:?}"
        );
        assert!(
            text.get(range.clone()).is_some(),
            "{range:?} off the boundaries of {text:?}"
        );
        covered = range;
    }
}

/// Pieces that mean something to a parser, and some that should not, with a space between them.
const PIECES: &str = "def f( class A: if x: else: elif y: for i in while try: except* E as e: match x: case [a, *b]: \
    with a as b, lambda x: async await yield import a.b from . import * global g del x return pass type X = print \
    x é ﬁ 1 0x 1e ' \" ''' \"\"\" f' f\"\"\"{ rb' t' \\N{ { } {{ [ ] ( ) : := = == ! !r , ; . ... @ -> + - ** not is \
    \\ # % ? $ 😀";
const SPACES: [&str; 12] = [
    " ",
    "\n",
    "\n    ",
    "\n\t",
    "\n        ",
    "\r\n",
    "\r",
    "\\\n",
    "\x0c",
    "\0",
    "\u{feff}",
    "\u{2028}",
];

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => prop::sample::select(PIECES.split(' ').collect::<Vec<_>>()).prop_map(str::to_owned),
        6 => prop::sample::select(&SPACES).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_string(text in any::<String>()) {
        ask_everything(&text);
    }

    #[test]
    fn any_pieces(pieces in prop::collection::vec(piece(), 0..60)) {
        ask_everything(&pieces.concat());
    }

    #[test]
    fn any_piece_many_times(piece in piece(), other in piece(), count in 1_usize..3000) {
        ask_everything(&format!("{piece}{other}").repeat(count));
    }
}

/// At every key: each prefix of a case, cut at each character.
#[test]
fn truncations() {
    let cases = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    for path in python::files_below(&cases) {
        let text = fs::read_to_string(path).unwrap();
        for (at, _) in text.char_indices() {
            check_spans(&text[..at]);
            check_spans(&text[at..]);
        }
    }
}

/// Texts of `n` levels or links of one kind.
fn repetitions(n: usize) -> Vec<String> {
    vec![
        format!("{}{}", "(".repeat(n), ")".repeat(n)),
        "(".repeat(n),
        "[".repeat(n),
        "{".repeat(n),
        "f'{".repeat(n),
        "f'''{".repeat(n),
        format!("x = {}a", "a+".repeat(n)),
        format!("x = {}a", "not ".repeat(n)),
        format!("x = {}a", "-~+".repeat(n)),
        format!("x = {}a", "a**".repeat(n)),
        format!("x = {}a", "lambda: ".repeat(n)),
        format!("x = {}a", "lambda a, b: ".repeat(n)),
        format!("x = {}a", "a if b else ".repeat(n)),
        format!("x = a{}", ".b".repeat(n)),
        format!("x = a{}", "()".repeat(n)),
        format!("x = a{}", "[0]".repeat(n)),
        format!("{}a", "a = ".repeat(n)),
        format!("{}a", "await ".repeat(n)),
        format!("{}a", "yield ".repeat(n)),
        format!("{}a", "async ".repeat(n)),
        format!("{}a", "*".repeat(n)),
        format!("{}def f(): pass", "@a\n".repeat(n)),
        format!("x = {}", "'a' ".repeat(n)),
        format!("x = {}a", "a < ".repeat(n)),
        format!("x = {}a", "a and ".repeat(n)),
        format!("match x:\n case {}a: pass", "[".repeat(n)),
        format!("match x:\n case {}a: pass", "a | ".repeat(n)),
        format!("match x:\n case {}a: pass", "a.".repeat(n)),
        (0..n)
            .map(|depth| format!("{}if x:\n", " ".repeat(depth)))
            .collect(),
        "if x: ".repeat(n),
        "class A: ".repeat(n),
        "for x in ".repeat(n),
        format!("[{}]", "for x in y ".repeat(n)),
        format!("[a {}]", "for x in y if z ".repeat(n)),
        "try:\n".repeat(n),
        "else:\n".repeat(n),
        "match match ".repeat(n),
        "\\\n".repeat(n),
    ]
}

/// Neither what is refused nor what is just accepted overflows a stack that is a quarter of a thread's.
#[test]
fn deep_and_long_texts() {
    let asked = std::thread::Builder::new().stack_size(512 << 10).spawn(|| {
        for n in [40, 80, 240, 480, 5000, 10_000] {
            for text in repetitions(n) {
                ask_everything(&text);
            }
        }
    });
    asked.unwrap().join().unwrap();
}

/// Long is not deep: these are still answered.
#[test]
fn long_texts_are_answered() {
    let chain = "elif x: y = 1\n".repeat(1000);
    let names_of = |text: String| {
        names(&text).map(|found| found.bound.into_iter().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(
        names_of(format!("if x: z = 1\n{chain}")).as_deref(),
        Some("y z")
    );
    assert_eq!(
        names_of(format!("x = [{}]", "1, ".repeat(50_000))).as_deref(),
        Some("x")
    );
    assert_eq!(
        names_of(format!("x = {}1", "1 + ".repeat(300))).as_deref(),
        Some("x")
    );
    assert_eq!(
        names_of(format!("x = ({})", "'a'\n".repeat(5000))).as_deref(),
        Some("x")
    );
    assert_eq!(names_of("x = 1\n".repeat(50_000)).as_deref(), Some("x"));
    assert_eq!(names_of(format!("x = {}1", "1 + ".repeat(5000))), None);
    #[cfg(feature = "rustpython")]
    assert!(vmrepl_syntax::rustpython::names(&format!("if x: z = 1\n{chain}")).is_some());
}
