//! The line editor: multi-line cells, completion from the live session.

use std::cell::RefCell;
use std::rc::Rc;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper, Highlighter, Hinter};
use vmrepl_session::{CompletenessStatus, Session};

/// What the editor asks while a cell is typed.
#[derive(Helper, Highlighter, Hinter)]
pub(crate) struct CellHelper {
    pub(crate) session: Rc<RefCell<Option<Session>>>,
}

impl Validator for CellHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        let line = text.trim_end();
        if line.is_empty() || line.starts_with(':') || line.ends_with('?') {
            return Ok(ValidationResult::Valid(None));
        }
        // A block waits for its blank line, as in Python's own REPL.
        let last = text.rsplit('\n').next().unwrap_or("");
        if text.contains('\n') && last.starts_with([' ', '\t']) && !last.trim().is_empty() {
            return Ok(ValidationResult::Incomplete);
        }
        let mut session = self.session.borrow_mut();
        let status = session
            .as_mut()
            .and_then(|session| session.completeness(text).ok());
        Ok(match status.map(|found| found.status) {
            Some(CompletenessStatus::Incomplete) => ValidationResult::Incomplete,
            // What is wrong with it, the guest will say when it runs.
            _ => ValidationResult::Valid(None),
        })
    }
}

impl Completer for CellHelper {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> Result<(usize, Vec<Pair>), ReadlineError> {
        let before = &line[..at];
        if before
            .rsplit('\n')
            .next()
            .is_some_and(|last| last.trim().is_empty())
        {
            let indent = Pair {
                display: "    ".to_owned(),
                replacement: "    ".to_owned(),
            };
            return Ok((at, vec![indent]));
        }
        let mut session = self.session.borrow_mut();
        let Some(Ok((matches, start))) = session
            .as_mut()
            .map(|session| session.complete(line, before.chars().count()))
        else {
            return Ok((at, Vec::new()));
        };
        let start = line
            .char_indices()
            .nth(start)
            .map_or(line.len(), |(byte, _)| byte);
        let pairs = matches
            .into_iter()
            .map(|found| Pair {
                display: format!("{}  {}", found.text, found.type_name),
                replacement: found.text,
            })
            .collect();
        Ok((start, pairs))
    }
}
