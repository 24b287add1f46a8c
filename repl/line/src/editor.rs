//! The line editor: whole cells, indentation, colours, completion from the live session.

use std::borrow::Cow;
use std::path::Path;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::history::FileHistory;
use rustyline::{
    Cmd, CompletionType, ConditionalEventHandler, Config, Context, Editor, Event, EventContext,
    EventHandler, Helper, Hinter, KeyCode, KeyEvent, Modifiers, Movement, RepeatCount, Validator,
};

use crate::colour::{PROMPT, RESET, paint};
use crate::shared::Shared;
use crate::typed::{Typed, is_for_the_face};

const HISTORY_LINES: usize = 10_000;
const INDENT: u8 = 4;

/// The editor with its history.
pub(crate) type CellEditor = Editor<CellHelper, FileHistory>;

/// What the editor asks while a cell is typed.
#[derive(Helper, Hinter, Validator)]
pub(crate) struct CellHelper {
    shared: Shared,
    colours: bool,
}

/// Sets the editor up.
pub(crate) fn editor(
    shared: &Shared,
    colours: bool,
    history: &Path,
) -> Result<CellEditor, ReadlineError> {
    let config = Config::builder()
        .max_history_size(HISTORY_LINES)?
        .completion_type(CompletionType::List)
        .bracketed_paste(true)
        .indent_size(INDENT)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(CellHelper {
        shared: shared.clone(),
        colours,
    }));
    let keys: [(KeyCode, Modifiers, Box<dyn ConditionalEventHandler>); 3] = [
        (
            KeyCode::Enter,
            Modifiers::NONE,
            Box::new(Enter(shared.clone())),
        ),
        (KeyCode::Backspace, Modifiers::NONE, Box::new(Backspace)),
        (KeyCode::Tab, Modifiers::NONE, Box::new(Tab)),
    ];
    for (key, modifiers, handler) in keys {
        editor.bind_sequence(KeyEvent(key, modifiers), EventHandler::Conditional(handler));
    }
    editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Newline);
    // There is none at the first start.
    drop(editor.load_history(history));
    Ok(editor)
}

/// Adds what was typed to the history, here and on disk. A history that cannot be kept stops nobody.
pub(crate) fn remember(editor: &mut CellEditor, text: &str, path: &Path) {
    if editor.add_history_entry(text).unwrap_or(false) {
        if let Some(folder) = path.parent() {
            drop(std::fs::create_dir_all(folder));
        }
        // Appending keeps what other terminals have added meanwhile.
        drop(editor.append_history(path));
    }
}

/// Ends a whole cell, or opens its next line with the right indent.
struct Enter(Shared);

impl ConditionalEventHandler for Enter {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        let (text, at) = (context.line(), context.pos());
        if text[at..].contains('\n') {
            // In the middle of a cell.
            let line = text[..at].rsplit('\n').next().unwrap_or("");
            let indent = &line[..line.len() - line.trim_start().len()];
            return Some(Cmd::Insert(1, format!("\n{indent}")));
        }
        Some(match self.0.decide(text) {
            Typed::Whole => Cmd::AcceptLine,
            Typed::More { indent } => Cmd::Insert(1, format!("\n{indent}")),
        })
    }
}

/// Takes a whole indent away where there is only indent before the cursor.
struct Backspace;

impl ConditionalEventHandler for Backspace {
    fn handle(&self, _: &Event, n: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        let before = &context.line()[..context.pos()];
        let line = before.rsplit('\n').next().unwrap_or("");
        let blank = line.bytes().all(|byte| byte == b' ');
        let steps = !line.is_empty() && line.len().is_multiple_of(usize::from(INDENT));
        (n == 1 && blank && steps).then_some(Cmd::Dedent(Movement::WholeLine))
    }
}

/// Indents where there is nothing to complete.
struct Tab;

impl ConditionalEventHandler for Tab {
    fn handle(&self, _: &Event, n: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        let before = &context.line()[..context.pos()];
        let line = before.rsplit('\n').next().unwrap_or("");
        let blank = line.bytes().all(|byte| byte == b' ');
        let step = usize::from(INDENT);
        (n == 1 && blank).then(|| Cmd::Insert(1, " ".repeat(step - line.len() % step)))
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
        if before.starts_with(':') && !before.contains(' ') {
            return Ok((0, commands(before)));
        }
        // An argument of a command is Python, or near enough.
        let mut session = self.shared.lock();
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
            // Names come from the guest: what is no text stays out of the terminal.
            .filter(|found| !found.text.chars().any(char::is_control))
            .map(|found| Pair {
                display: found.text.clone(),
                replacement: found.text,
            })
            .collect();
        Ok((start, pairs))
    }
}

fn commands(before: &str) -> Vec<Pair> {
    crate::commands::names()
        .filter(|name| name.starts_with(before))
        .map(|name| Pair {
            display: name.to_owned(),
            replacement: name.to_owned(),
        })
        .collect()
}

impl Highlighter for CellHelper {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if !self.colours || is_for_the_face(line) {
            return Cow::Borrowed(line);
        }
        Cow::Owned(paint(line, self.shared.language()))
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(
        &'s self,
        prompt: &'p str,
        default: bool,
    ) -> Cow<'b, str> {
        if !self.colours || !default {
            return Cow::Borrowed(prompt);
        }
        Cow::Owned(format!("{PROMPT}{prompt}{RESET}"))
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        self.colours && kind != CmdKind::MoveCursor
    }
}
