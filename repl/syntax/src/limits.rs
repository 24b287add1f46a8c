//! What is too much for the host's parser, told from the tokens before it starts.
//!
//! The parser grows its stack, but its tree is dropped recursively, and Python has limits of its own that differ
//! from version to version. So a tree that could be deep is never built. A chain of a thousand `elif` or a list of
//! a million numbers is long, not deep.

use crate::scan::{Kind, Scan};

/// The largest cell; pasted data comes closer to it than code.
const SOURCE_BYTES: usize = 4 << 20;
/// The deepest expression. A level of the tree takes less than 1 KiB of stack, also in a debug build.
const EXPRESSION_LEVELS: usize = 500;
/// Python stops at 200, and its parser may stop a little earlier.
const BRACKET_LEVELS: usize = 90;
/// Python stops at 100.
const BLOCK_LEVELS: usize = 90;

/// Whether the parser may have the text.
pub(crate) fn fit(source: &str, scan: &Scan) -> bool {
    source.len() <= SOURCE_BYTES && expressions_fit(source, scan) && blocks_fit(source)
}

/// The signs that may each put one expression into another, since the last comma, at one level of brackets.
#[derive(Default)]
struct Level {
    links: usize,
    /// A comma does not end them: `lambda a, b: lambda c, d: ...`.
    lambdas: usize,
}

fn expressions_fit(source: &str, scan: &Scan) -> bool {
    let mut levels = vec![Level::default()];
    // The sum over all levels: no expression is deeper.
    let mut deep = 0;
    for token in &scan.tokens {
        let is_inner = levels.len() > 1;
        let Some(level) = levels.last_mut() else {
            return false;
        };
        match (token.kind, &source[token.range.clone()]) {
            (Kind::Newline, _) | (Kind::Operator, ",") => {
                deep -= level.links;
                level.links = 0;
                if token.kind == Kind::Newline {
                    deep -= level.lambdas;
                    level.lambdas = 0;
                }
            }
            (Kind::Word, "lambda") => {
                level.lambdas += 1;
                deep += 1;
            }
            (Kind::Operator | Kind::InterpolatedStart, _)
            | (Kind::Word, "if" | "else" | "not" | "await" | "yield") => {
                level.links += 1;
                deep += 1;
            }
            (Kind::Open, _) => {
                level.links += 1;
                deep += 1;
                levels.push(Level::default());
            }
            (Kind::Close, _) if is_inner => {
                deep -= level.links + level.lambdas;
                levels.pop();
            }
            _ => {}
        }
        if deep > EXPRESSION_LEVELS || levels.len() > BRACKET_LEVELS {
            return false;
        }
    }
    true
}

/// Blocks are no deeper than the widest indentation has characters, and rarely that deep.
fn blocks_fit(source: &str) -> bool {
    let mut widths = vec![0];
    for line in source.split(['\n', '\r']) {
        let width = line.len() - line.trim_start_matches([' ', '\t', '\x0c']).len();
        if width == line.len() {
            continue;
        }
        while widths.last().is_some_and(|&outer| outer > width) {
            widths.pop();
        }
        if widths.last().is_none_or(|&outer| outer < width) {
            widths.push(width);
        }
        if widths.len() > BLOCK_LEVELS {
            return false;
        }
    }
    true
}
