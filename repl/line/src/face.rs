//! The loop: read a cell, run it, show what it says.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use rustyline::error::ReadlineError;
use vmrepl_session::{Answer, Cell, Session, SessionError, Status, hint_for};

use crate::commands;
use crate::editor::{CellEditor, editor, remember};
use crate::screen::Screen;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::typed::Typed;

/// What can end the face.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("the terminal failed")]
    Terminal(#[source] ReadlineError),
    #[error("could not write to the terminal")]
    Write(#[source] io::Error),
    #[error("the session failed")]
    Session(#[source] SessionError),
    #[error("the session is lost")]
    Lost,
}

/// What follows a line.
pub(crate) enum Next {
    /// The next prompt.
    Prompt,
    /// A cell.
    Cell {
        /// Its source.
        code: String,
        /// Whether its time is told.
        timed: bool,
    },
    /// The end.
    Leave,
}

/// A cell of this run.
pub(crate) struct Ran {
    pub(crate) number: u64,
    pub(crate) code: String,
    /// It ended as it should.
    pub(crate) well: bool,
}

/// What the face remembers between lines.
pub(crate) struct Face<'a> {
    shared: Shared,
    settings: &'a Settings,
    /// The next cell's number.
    number: u64,
    pub(crate) timing: bool,
    pub(crate) ran: Vec<Ran>,
}

/// Reads and runs cells until the person leaves.
///
/// # Errors
/// When the terminal or the session fails beyond repair.
pub fn run(session: Session, settings: &Settings, out: &mut dyn Write) -> Result<(), LineError> {
    let template = session.info().template.clone();
    let name = session.name().map(str::to_owned);
    (settings.aim)(&session);
    let shared = Shared::new(session);
    if let Some(idle) = settings.idle.filter(|_| name.is_some()) {
        shared.park_when_idle(idle);
    }
    let mut editor =
        editor(&shared, settings.colours, &settings.history).map_err(LineError::Terminal)?;
    let mut screen = Screen::new(out, settings);
    let mut face = Face {
        shared,
        settings,
        number: 1,
        timing: false,
        ran: Vec::new(),
    };
    screen.remark(&match &name {
        None => format!(
            "vmrepl {}, template {template}; :help tells more, Ctrl-D leaves",
            env!("CARGO_PKG_VERSION")
        ),
        Some(name) => format!(
            "vmrepl {}, session {name} of template {template}; :undo goes back, :help tells more, Ctrl-D leaves",
            env!("CARGO_PKG_VERSION")
        ),
    });
    let who = name.unwrap_or(template);
    loop {
        let prompt = format!("{who} [{}]> ", face.next_number());
        let text = match face.read(&mut editor, &prompt) {
            Ok(text) => text,
            // Ctrl-C at the prompt: the line is dropped, nothing else.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(LineError::Terminal(error)),
        };
        if text.trim().is_empty() {
            continue;
        }
        remember(&mut editor, text.trim_end(), &settings.history);
        let next = face.understand(&text, &mut screen)?;
        screen.end().map_err(LineError::Write)?;
        match next {
            Next::Prompt => {}
            Next::Leave => break,
            Next::Cell { code, timed } => {
                face.run_cell(&code, timed, &mut screen)?;
                screen.end().map_err(LineError::Write)?;
            }
        }
    }
    // What only the machine has is stored before it ends.
    face.shared.leave().map_err(LineError::Session)
}

impl Face<'_> {
    /// Reads a whole cell. On a terminal that cannot edit more than a line, line by line.
    fn read(&self, editor: &mut CellEditor, prompt: &str) -> Result<String, ReadlineError> {
        let mut text = editor.readline(prompt)?;
        while let Typed::More { .. } = self.shared.decide(&text) {
            let line = editor.readline("... ")?;
            text.push('\n');
            text.push_str(&line);
        }
        Ok(text)
    }

    fn understand(&mut self, text: &str, screen: &mut Screen<'_>) -> Result<Next, LineError> {
        let line = text.trim();
        if line.starts_with(':') {
            return commands::run(self, screen, line);
        }
        if matches!(line, "exit" | "quit" | "exit()" | "quit()") {
            return Ok(Next::Leave);
        }
        if crate::typed::is_for_the_face(line) {
            let name = line.trim_matches('?').trim().to_owned();
            let detail = u8::from(line.contains("??"));
            return self.ask(screen, |session, screen| {
                let found = session.inspect(&name, name.chars().count(), detail)?;
                screen.say(&found.unwrap_or_else(|| format!("nothing is known of {name}")));
                Ok(())
            });
        }
        Ok(Next::Cell {
            code: text.to_owned(),
            timed: self.timing,
        })
    }

    /// Asks the session something; what goes wrong is told, and costs the session only when it is lost.
    pub(crate) fn ask(
        &mut self,
        screen: &mut Screen<'_>,
        ask: impl FnOnce(&mut Session, &mut Screen<'_>) -> Result<(), SessionError>,
    ) -> Result<Next, LineError> {
        if let Err(error) = self.shared.wake() {
            screen.trouble(&chain(&error));
            return Ok(Next::Prompt);
        }
        let mut session = self.shared.lock();
        let live = session.as_mut().ok_or(LineError::Lost)?;
        let asked = ask(live, screen);
        let usable = live.is_usable();
        drop(session);
        if let Err(error) = asked {
            screen.trouble(&chain(&error));
        }
        if !usable {
            self.offer_fresh(screen)?;
        }
        Ok(Next::Prompt)
    }

    fn run_cell(
        &mut self,
        code: &str,
        timed: bool,
        screen: &mut Screen<'_>,
    ) -> Result<(), LineError> {
        let cell = Cell {
            allow_input: true,
            ..Cell::new(code)
        };
        let number = self.next_number();
        self.number += 1;
        screen.begin(number);
        (self.settings.rearm)();
        let began = Instant::now();
        if let Err(error) = self.shared.wake() {
            screen.trouble(&chain(&error));
            return Ok(());
        }
        let mut session = self.shared.lock();
        let live = session.as_mut().ok_or(LineError::Lost)?;
        if let Err(error) = live.make_ready() {
            screen.trouble(&chain(&error));
            return Ok(());
        }
        // Its machine may be another than last time.
        (self.settings.aim)(live);
        let answer = live.run(&cell, screen);
        let usable = live.is_usable();
        let fallen_back = live.fallen_back();
        drop(session);
        let took = began.elapsed();
        screen.end().map_err(LineError::Write)?;
        let well = answer
            .as_ref()
            .is_ok_and(|answer| answer.status == Some(Status::Ok));
        self.ran.push(Ran {
            number,
            code: code.to_owned(),
            well,
        });
        match answer {
            Ok(answer) => {
                explain(&answer, usable && fallen_back.is_none(), screen);
                if timed {
                    screen.remark(&times(&answer, took));
                }
            }
            Err(error) => screen.trouble(&chain(&error)),
        }
        if let Some(fell_back) = fallen_back {
            let left = match fell_back.kept {
                None => "that cell left nothing".to_owned(),
                Some(number) => format!("that cell failed and is kept as the branch {number}"),
            };
            screen.remark(&format!(
                "{left}: the session stands at {} again",
                place(fell_back.position)
            ));
        }
        if !usable {
            self.offer_fresh(screen)?;
        }
        Ok(())
    }

    /// The number of the next cell.
    fn next_number(&self) -> u64 {
        self.shared.next_number().map_or(self.number, u64::from)
    }

    /// Moves a session with a name.
    pub(crate) fn go(
        &mut self,
        screen: &mut Screen<'_>,
        go: impl FnOnce(&mut Session) -> Result<u32, SessionError>,
    ) -> Result<Next, LineError> {
        self.ask(screen, |session, screen| {
            let number = go(session)?;
            screen.remark(&format!("at {}", place(number)));
            Ok(())
        })
    }

    fn offer_fresh(&mut self, screen: &mut Screen<'_>) -> Result<(), LineError> {
        screen.say("this session's names are gone.");
        screen.end().map_err(LineError::Write)?;
        (self.settings.rearm)();
        if !(self.settings.ask)("restore the template afresh?") {
            return Err(LineError::Lost);
        }
        self.restart(screen)
    }

    /// A fresh restore in place of the session.
    pub(crate) fn restart(&mut self, screen: &mut Screen<'_>) -> Result<(), LineError> {
        let mut session = self.shared.lock();
        if session.as_ref().is_some_and(|live| live.name().is_some()) {
            drop(session);
            return self.go(screen, |live| live.go_to(0)).map(drop);
        }
        let old = session.take().ok_or(LineError::Lost)?;
        let fresh = old.restart().map_err(LineError::Session)?;
        (self.settings.aim)(&fresh);
        *session = Some(fresh);
        self.number = 1;
        screen.remark("a fresh session; the names of the old one are gone");
        Ok(())
    }
}

/// A cell in words.
pub(crate) fn place(number: u32) -> String {
    match number {
        0 => "its beginning".to_owned(),
        _ => format!("cell {number}"),
    }
}

/// Says what the cell's own words did not. `usable`: the machine that it ran on is.
fn explain(answer: &Answer, usable: bool, screen: &mut Screen<'_>) {
    match answer.status {
        Some(Status::Ok) if answer.exit_code != 0 => screen.remark(&format!(
            "the code left with {}; the session goes on",
            answer.exit_code
        )),
        Some(Status::Ok | Status::Error | Status::Interrupted) if usable => {}
        _ => screen.trouble(answer.error.as_deref().unwrap_or("the cell failed")),
    }
    if usable && let Some(hint) = hint_for(answer) {
        screen.remark(&format!("hint: {hint}"));
    }
}

fn times(answer: &Answer, took: Duration) -> String {
    let whole = took.as_secs_f64() * 1000.0;
    match answer.timing.as_ref().and_then(|times| times.get("run_ms")) {
        Some(run) => format!("{whole:.1} ms, of which the code took {run:.1} ms"),
        None => format!("{whole:.1} ms"),
    }
}

/// An error and its causes as one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
