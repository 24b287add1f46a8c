//! The loop: read a cell, run it, show what it says.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::Rc;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};
use vmrepl_session::{
    Bundle, Cell, Event, Input, InputRequest, Interrupter, Session, SessionError, Sink, Status,
    hint_for,
};

use crate::editor::CellHelper;
use crate::sanitise::Sanitiser;

const HISTORY_LINES: usize = 10_000;

const HELP: &str = "  NAME?         what NAME is (NAME?? with its source)
  :names        your names
  :info         this session: template, engine, memory, socket
  :restart      a fresh restore; your names are gone
  :help         this
  :quit, :q     leave (Ctrl-D does, too)
  Ctrl-C stops the running cell and keeps the session; Tab completes; Ctrl-R searches the history";

/// What the program's entry knows and the face needs.
pub struct Settings {
    /// Where lines are kept across runs.
    pub history: PathBuf,
    /// Told whom Ctrl-C is for, at the start and after each fresh restore.
    pub aim: Box<dyn Fn(Interrupter)>,
    /// Asked before each cell: forgets Ctrl-C presses of the past.
    pub rearm: Box<dyn Fn()>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("history", &self.history)
            .finish_non_exhaustive()
    }
}

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
}

type CellEditor = Editor<CellHelper, FileHistory>;

/// Reads and runs cells until the person leaves.
///
/// # Errors
/// When the terminal or the session fails beyond repair.
pub fn run(session: Session, settings: &Settings, out: &mut dyn Write) -> Result<(), LineError> {
    let template = session.info().template.clone();
    (settings.aim)(session.interrupter());
    let shared = Rc::new(RefCell::new(Some(session)));
    let mut editor = editor(&shared).map_err(LineError::Terminal)?;
    // There is none at the first start.
    drop(editor.load_history(&settings.history));
    writeln!(out, "vmrepl: template {template}; :help tells more").map_err(LineError::Write)?;
    let mut number = 1_u64;
    loop {
        let text = match editor.readline(&format!("{template} [{number}]> ")) {
            Ok(text) => text,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(LineError::Terminal(error)),
        };
        if text.trim().is_empty() {
            continue;
        }
        // A history that cannot be kept does not stop anybody.
        drop(editor.add_history_entry(text.as_str()));
        drop(save_history(&mut editor, &settings.history));
        match command(&text, &shared, settings, out)? {
            Next::Leave => break,
            Next::Done => continue,
            Next::Cell => {}
        }
        (settings.rearm)();
        number += 1;
        cell(&text, &shared, settings, out)?;
    }
    Ok(())
}

fn editor(shared: &Rc<RefCell<Option<Session>>>) -> Result<CellEditor, ReadlineError> {
    let config = Config::builder()
        .max_history_size(HISTORY_LINES)?
        .completion_type(CompletionType::List)
        .bracketed_paste(true)
        .indent_size(4)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(CellHelper {
        session: Rc::clone(shared),
    }));
    Ok(editor)
}

fn save_history(editor: &mut CellEditor, path: &PathBuf) -> Result<(), ReadlineError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    editor.save_history(path)
}

enum Next {
    Cell,
    Done,
    Leave,
}

fn command(
    text: &str,
    shared: &Rc<RefCell<Option<Session>>>,
    settings: &Settings,
    out: &mut dyn Write,
) -> Result<Next, LineError> {
    let line = text.trim();
    if let Some(name) = line.strip_suffix('?')
        && !line.contains('\n')
    {
        let (name, detail) = name.strip_suffix('?').map_or((name, 0), |name| (name, 1));
        let found = with(shared, |session| {
            session.inspect(name, name.chars().count(), detail)
        })?;
        say(
            out,
            &found.unwrap_or_else(|| format!("nothing is known of {name}")),
        )?;
        return Ok(Next::Done);
    }
    if !line.starts_with(':') {
        return Ok(Next::Cell);
    }
    match line {
        ":quit" | ":q" => return Ok(Next::Leave),
        ":help" => say(out, HELP)?,
        ":names" => {
            for v in with(shared, Session::variables)? {
                say(
                    out,
                    &format!("{:<20} {:<14} {}", v.name, v.type_name, v.repr),
                )?;
            }
        }
        ":info" => {
            if let Some(session) = shared.borrow().as_ref() {
                let info = session.info();
                let memory = info.memory_bytes >> 20;
                let text = format!(
                    "template {}, engine {}, {memory} MB, Linux {}",
                    info.template, info.engine, info.linux
                );
                say(out, &format!("{text}\nsocket {}", info.socket.display()))?;
            }
        }
        ":restart" => restart(shared, settings)?,
        other => say(out, &format!("{other} is not known; :help lists what is"))?,
    }
    Ok(Next::Done)
}

fn with<T>(
    shared: &Rc<RefCell<Option<Session>>>,
    ask: impl FnOnce(&mut Session) -> Result<T, SessionError>,
) -> Result<T, LineError> {
    let mut session = shared.borrow_mut();
    let session = session
        .as_mut()
        .expect("there is a session but during a restart");
    ask(session).map_err(LineError::Session)
}

fn restart(shared: &Rc<RefCell<Option<Session>>>, settings: &Settings) -> Result<(), LineError> {
    let old = shared
        .borrow_mut()
        .take()
        .expect("there is a session but during a restart");
    let fresh = old.restart().map_err(LineError::Session)?;
    (settings.aim)(fresh.interrupter());
    *shared.borrow_mut() = Some(fresh);
    Ok(())
}

fn cell(
    text: &str,
    shared: &Rc<RefCell<Option<Session>>>,
    settings: &Settings,
    out: &mut dyn Write,
) -> Result<(), LineError> {
    let cell = Cell {
        allow_input: true,
        ..Cell::new(text)
    };
    let mut screen = Screen {
        out,
        sanitiser: Sanitiser::default(),
        failed: None,
    };
    let answer = shared
        .borrow_mut()
        .as_mut()
        .map(|session| session.run(&cell, &mut screen));
    if let Some(error) = screen.failed {
        return Err(LineError::Write(error));
    }
    let lost = match answer {
        Some(Ok(answer)) => {
            if let Some(hint) = hint_for(&answer) {
                say(out, &format!("hint: {hint}"))?;
            }
            let gone = matches!(
                answer.status,
                Some(Status::RunnerLost | Status::MachineLost | Status::MemoryExceeded)
            ) || answer
                .error
                .as_deref()
                .is_some_and(|error| error.ends_with("its machine was given up"));
            gone.then(|| answer.error.unwrap_or_default())
        }
        Some(Err(error)) => Some(error.to_string()),
        None => None,
    };
    if let Some(why) = lost {
        say(
            out,
            &format!("{why}\nthis session's names are gone; restoring the template afresh"),
        )?;
        restart(shared, settings)?;
    }
    Ok(())
}

fn say(out: &mut dyn Write, text: &str) -> Result<(), LineError> {
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(LineError::Write)
}

/// Shows what a cell says.
struct Screen<'a> {
    out: &'a mut dyn Write,
    sanitiser: Sanitiser,
    failed: Option<io::Error>,
}

impl Screen<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let clean = self.sanitiser.filter(bytes);
        if let Err(error) = self.out.write_all(&clean).and_then(|()| self.out.flush()) {
            self.failed.get_or_insert(error);
        }
    }

    fn bundle(&mut self, bundle: &Bundle) {
        let table = bundle.table();
        let text = match table {
            Some(table) => {
                let rows = table
                    .row_count
                    .map_or_else(String::new, |rows| rows.to_string());
                format!(
                    "{}\n[{rows} rows x {} columns]",
                    table.preview,
                    table.columns.len()
                )
            }
            None => bundle.text().unwrap_or("").to_owned(),
        };
        self.put(text.as_bytes());
        self.put(b"\n");
    }
}

impl Sink for Screen<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Stdout(output) | Event::Stderr(output) => self.put(output.as_bytes()),
            Event::Result(shown) | Event::Display(shown) => self.bundle(&shown.bundle),
            Event::Error(raised) => self.put(raised.traceback.as_bytes()),
            Event::Table(_) | Event::InputRequest(_) | Event::Done(_) | Event::Unknown => {}
        }
    }

    fn input(&mut self, request: &InputRequest) -> Input {
        self.put(request.prompt.as_bytes());
        let mut line = String::new();
        match io::stdin().read_line(&mut line) {
            Ok(count) if count > 0 => Input::Line(line.trim_end_matches('\n').to_owned()),
            _ => Input::End,
        }
    }
}
