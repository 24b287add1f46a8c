//! The blocks at the end of a text.

use ruff_python_ast::{ExceptHandler, Stmt};

use crate::parse::Reading;
use crate::scan::{Kind, Token};
use crate::whitespace::is_blank;

/// Whether the last line is in the middle of a block: an empty line ends it. For the guest `match` is no block.
pub(super) fn is_inside_block(source: &str, reading: &Reading) -> bool {
    let last = source.rsplit('\n').next().unwrap_or(source);
    let is_block = matches!(
        reading.parsed.suite().last(),
        Some(
            Stmt::FunctionDef(_)
                | Stmt::ClassDef(_)
                | Stmt::For(_)
                | Stmt::While(_)
                | Stmt::If(_)
                | Stmt::With(_)
                | Stmt::Try(_)
        )
    );
    is_block && last.starts_with([' ', '\t']) && !is_blank(last)
}

/// Whether one of the blocks at the end is the `else` of a `try` without `except`.
pub(super) fn has_else_without_except(reading: &Reading) -> bool {
    let mut last = reading.parsed.suite().last();
    while let Some(statement) = last {
        if let Stmt::Try(block) = statement
            && block.handlers.is_empty()
            && !block.orelse.is_empty()
        {
            return true;
        }
        last = last_inside(statement);
    }
    false
}

/// Whether the last statement's line begins with `else`.
pub(super) fn ends_in_else(text: &str, tokens: &[Token]) -> bool {
    let mut first = None;
    let mut is_new = true;
    for token in tokens.iter().filter(|token| token.kind != Kind::Comment) {
        if is_new {
            first = Some(token);
        }
        is_new = token.kind == Kind::Newline;
    }
    first.is_some_and(|token| &text[token.range.clone()] == "else")
}

/// The last statement in the last block of a statement.
fn last_inside(statement: &Stmt) -> Option<&Stmt> {
    match statement {
        Stmt::FunctionDef(function) => function.body.last(),
        Stmt::ClassDef(class) => class.body.last(),
        Stmt::With(with) => with.body.last(),
        Stmt::For(block) => block.orelse.last().or(block.body.last()),
        Stmt::While(block) => block.orelse.last().or(block.body.last()),
        Stmt::If(block) => match block.elif_else_clauses.last() {
            Some(clause) => clause.body.last(),
            None => block.body.last(),
        },
        Stmt::Match(block) => block.cases.last().and_then(|case| case.body.last()),
        Stmt::Try(block) => {
            let handler = block
                .handlers
                .last()
                .and_then(|ExceptHandler::ExceptHandler(h)| h.body.last());
            block
                .finalbody
                .last()
                .or(block.orelse.last())
                .or(handler)
                .or(block.body.last())
        }
        _ => None,
    }
}
