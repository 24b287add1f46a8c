//! Sessions with names: what can be done to them without a machine.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use regex_lite::Regex;
use serde_json::{Value, json};
use vmrepl_session::{
    Book, CellRow, CellState, ExportForm, Language, Opened, Opening, ROOT, Session, SessionError,
    SessionName, SessionRow, Spot, TemplateName, checkpoint_bytes, collect, export_session,
    open_history, session_sizes, thin,
};

use crate::args::{LogArgs, RunArgs, SessionAction};
use crate::failure::UsageError;
use crate::out;
use crate::places::Environment;

/// A snapshot younger than this is kept by `gc`: its cell may not be written down yet.
const FRESH: Duration = Duration::from_secs(600);
/// Characters of a cell's code in a line of the log.
const CODE_CHARS: usize = 60;

/// Opens the session that the arguments name, and says what is not as expected.
pub(crate) fn open(
    args: &RunArgs,
    name: &str,
    language: Option<Language>,
    environment: &Environment,
) -> Result<(Session, Opened)> {
    let name = SessionName::new(name)?;
    let template = TemplateName::new(&args.template)?;
    let opening = Opening {
        name: &name,
        template: &template,
        engine: args.engine.into(),
        at: args.at,
        patience: args.wait.unwrap_or(Duration::ZERO),
        rng: args.rng.into(),
        language,
    };
    let (mut session, opened) = Session::open(&environment.places, &opening)?;
    session.set_policy(args.policy())?;
    for number in &opened.lost {
        out::note(&format!(
            "vmrepl: cell {number} of {name} was running when its process ended; what it did is gone, and the \
             session stands at cell {}",
            opened.position
        ));
    }
    Ok((session, opened))
}

/// Where the session stands, when its last cell left nothing.
pub(crate) fn tell_fallen_back(session: &mut Session, name: &str) {
    if let Some(fell_back) = session.fallen_back() {
        let left = match fell_back.kept {
            None => "this cell left nothing".to_owned(),
            Some(number) => format!("this cell failed and is kept as the branch {number}"),
        };
        out::note(&format!(
            "vmrepl: {left}: session {name} stands at {} again",
            place(fell_back.position)
        ));
    }
}

/// A cell in words.
fn place(number: u32) -> String {
    if number == ROOT {
        "its beginning".to_owned()
    } else {
        format!("cell {number}")
    }
}

fn book(name: &str, environment: &Environment) -> Result<Book> {
    let name = SessionName::new(name)?;
    Ok(Book::open(&environment.places, &name, Duration::ZERO)?)
}

fn moved(name: &str, book: &Book, number: u32) -> Result<ExitCode> {
    let code = book.cell(number)?.code;
    let shown = if number == ROOT {
        String::new()
    } else {
        format!(": {}", first_line(&code))
    };
    out::line(&format!("{name} stands at {}{shown}", place(number)))?;
    Ok(ExitCode::SUCCESS)
}

/// `vmrepl undo`.
pub(crate) fn undo(name: &str, steps: u32, environment: &Environment) -> Result<ExitCode> {
    let mut book = book(name, environment)?;
    let number = book.undo(steps)?;
    moved(name, &book, number)
}

/// `vmrepl redo`.
pub(crate) fn redo(name: &str, steps: u32, environment: &Environment) -> Result<ExitCode> {
    let mut book = book(name, environment)?;
    let number = book.redo(steps)?;
    moved(name, &book, number)
}

/// `vmrepl goto`.
pub(crate) fn go_to(name: &str, number: u32, environment: &Environment) -> Result<ExitCode> {
    let mut book = book(name, environment)?;
    let number = book.go(number)?;
    moved(name, &book, number)
}

/// `vmrepl fork`: the parent may run on meanwhile.
pub(crate) fn fork(
    name: &str,
    new: &str,
    at: Option<u32>,
    count: Option<u32>,
    environment: &Environment,
) -> Result<ExitCode> {
    let names = match count {
        None => vec![SessionName::new(new)?],
        Some(count) => (1..=count)
            .map(|number| SessionName::new(&format!("{new}-{number}")))
            .collect::<Result<_, _>>()?,
    };
    let mut history = open_history(&environment.places)?;
    let from = history.session(name).map_err(SessionError::History)?;
    let number = at.unwrap_or(from.position);
    let cell = history
        .cell(from.id, number)
        .map_err(SessionError::History)?;
    if cell.checkpoint.is_none() {
        return Err(SessionError::NoCheckpoint {
            name: from.name,
            number,
            parent: cell.parent.unwrap_or(ROOT),
        }
        .into());
    }
    for new in names {
        history
            .fork(&from, number, new.as_str())
            .map_err(SessionError::History)?;
        out::line(&format!("{new} begins at {name}@{number}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `vmrepl branches`.
pub(crate) fn branches(name: &str, as_json: bool, environment: &Environment) -> Result<ExitCode> {
    let history = open_history(&environment.places)?;
    let session = history.session(name).map_err(SessionError::History)?;
    let tips = history.tips(session.id).map_err(SessionError::History)?;
    let mut rows = Vec::new();
    for tip in &tips {
        let cells = history
            .way_to(session.id, tip.number)
            .map_err(SessionError::History)?
            .len();
        let is_here = tip.number == session.position;
        if as_json {
            rows.push(
                json!({"cell": tip.number, "cells": cells, "is_here": is_here,
                "status": tip.outcome.as_ref().map(|outcome| &outcome.status), "code": tip.code}),
            );
            continue;
        }
        out::line(&format!(
            "{} {:>4} {:>4} cells  {:<16} {}",
            if is_here { '*' } else { ' ' },
            tip.number,
            cells,
            status(tip),
            first_line(&tip.code)
        ))?;
    }
    if as_json {
        out::line(&serde_json::to_string(&rows)?)?;
    } else if tips.is_empty() {
        out::note(&format!("{name} has no cells yet"));
    }
    Ok(ExitCode::SUCCESS)
}

/// `vmrepl log`.
pub(crate) fn log(args: &LogArgs, environment: &Environment) -> Result<ExitCode> {
    let history = open_history(&environment.places)?;
    let session = history.session(&args.name).map_err(SessionError::History)?;
    let way = history
        .way_to(session.id, session.position)
        .map_err(SessionError::History)?;
    let mut cells = history.cells(session.id).map_err(SessionError::History)?;
    if args.failed {
        cells.retain(CellRow::has_failed);
    }
    if let Some(pattern) = &args.grep {
        let pattern = Regex::new(pattern).map_err(|error| UsageError {
            message: format!("--grep {pattern}: {error}"),
        })?;
        cells.retain(|cell| {
            let output = cell.outcome.as_ref().map(|outcome| &outcome.output);
            pattern.is_match(&cell.code) || output.is_some_and(|output| pattern.is_match(output))
        });
    }
    if let Some(limit) = args.limit {
        cells.drain(..cells.len().saturating_sub(limit));
    }
    if args.json {
        let rows: Vec<Value> = cells.iter().map(|cell| cell_json(cell, &session)).collect();
        out::line(&serde_json::to_string(&rows)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for cell in &cells {
        let mark = if cell.number == session.position {
            '*'
        } else if way.contains(&cell.number) {
            '|'
        } else {
            ' '
        };
        out::line(&format!(
            "{mark} {:>4} {:<6} {:<16} {}",
            cell.number,
            format!("<{}", cell.parent.unwrap_or(ROOT)),
            status(cell),
            first_line(&cell.code)
        ))?;
    }
    if cells.is_empty() {
        out::note(&format!("no such cell in {}", session.name));
    }
    Ok(ExitCode::SUCCESS)
}

/// `vmrepl show NAME@CELL`.
pub(crate) fn show(what: &str, as_json: bool, environment: &Environment) -> Result<ExitCode> {
    let history = open_history(&environment.places)?;
    let spot = Spot::new(what)?;
    let session = history
        .session(&spot.session)
        .map_err(SessionError::History)?;
    let cell = history
        .cell(session.id, spot.number.unwrap_or(session.position))
        .map_err(SessionError::History)?;
    let stored = |checkpoint| checkpoint_bytes(&environment.places, checkpoint);
    let stored_bytes = cell.checkpoint.as_ref().and_then(stored);
    if as_json {
        let mut shown = cell_json(&cell, &session);
        shown["stored_bytes"] = json!(stored_bytes);
        out::line(&serde_json::to_string(&shown)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    out::line(&format!(
        "{}@{} after {}: {}",
        session.name,
        cell.number,
        place(cell.parent.unwrap_or(ROOT)),
        status(&cell)
    ))?;
    let quoted = |text: &str, sign: &str| {
        text.lines()
            .map(|line| format!("{sign} {line}\n"))
            .collect::<String>()
    };
    out::raw(quoted(&cell.code, ">").as_bytes())?;
    if let Some(outcome) = &cell.outcome {
        out::raw(quoted(&out::harmless(&outcome.output), " ").as_bytes())?;
        if outcome.output_dropped > 0 {
            out::line(&format!("  ({} more bytes)", outcome.output_dropped))?;
        }
        let kept: Value = serde_json::from_str(&outcome.answer).unwrap_or_default();
        for part in ["result_repr", "error"] {
            if let Some(text) = kept["answer"][part].as_str() {
                out::raw(quoted(&out::harmless(text), "=").as_bytes())?;
            }
        }
    }
    let figures = figures(&cell, stored_bytes);
    if !figures.is_empty() {
        out::line(&format!("  ({})", figures.join(", ")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a cell took and left, in words.
fn figures(cell: &CellRow, stored_bytes: Option<u64>) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(outcome) = &cell.outcome {
        said.push(format!("{} ms", outcome.took_us.div_ceil(1000)));
    }
    if let Some(checkpoint) = cell.checkpoint.filter(|_| cell.number != ROOT) {
        let changed = format!("{} pages changed", checkpoint.pages);
        let stored = stored_bytes.map(|bytes| format!(", stored in {}", size(bytes)));
        said.push(changed + &stored.unwrap_or_default());
        let memory = checkpoint.memory_bytes;
        said.extend(memory.map(|bytes| format!("the interpreter held {}", size(bytes))));
    }
    said
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

/// `vmrepl export`.
pub(crate) fn export(
    name: &str,
    file: Option<&Path>,
    environment: &Environment,
) -> Result<ExitCode> {
    let name = SessionName::new(name)?;
    let form = match file.map(|file| file.extension().and_then(|ending| ending.to_str())) {
        None | Some(Some("py" | "js" | "sh")) => ExportForm::Script,
        Some(Some("ipynb")) => ExportForm::Notebook,
        Some(_) => {
            let message = "the file's name must end in .ipynb, .py, .js or .sh".to_owned();
            return Err(UsageError { message }.into());
        }
    };
    let text = export_session(&environment.places, &name, form)?;
    let Some(path) = file else {
        out::raw(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    };
    // Never over what is there.
    File::create_new(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("could not write {}", path.display()))?;
    out::line(&format!("{} holds session {name}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn status(cell: &CellRow) -> String {
    match (cell.state, &cell.outcome) {
        _ if cell.number == ROOT => "the template".to_owned(),
        (CellState::Lost, _) => "lost".to_owned(),
        (_, None) => "running".to_owned(),
        (_, Some(outcome)) if cell.checkpoint.is_none() => {
            format!("{}, nothing left", outcome.status)
        }
        (_, Some(outcome)) => outcome.status.clone(),
    }
}

fn cell_json(cell: &CellRow, session: &SessionRow) -> Value {
    let outcome = cell.outcome.as_ref();
    json!({
        "session": session.name,
        "cell": cell.number,
        "parent": cell.parent,
        "is_here": cell.number == session.position,
        "code": cell.code,
        "began_ms": cell.began_ms,
        "state": match cell.state {
            CellState::Running => "running",
            CellState::Ended => "ended",
            CellState::Lost => "lost",
        },
        "status": outcome.map(|outcome| &outcome.status),
        "exit_code": outcome.map(|outcome| outcome.exit_code),
        "took_us": outcome.map(|outcome| outcome.took_us),
        "output": outcome.map(|outcome| &outcome.output),
        "output_dropped_bytes": outcome.map(|outcome| outcome.output_dropped),
        "kept": outcome.map(|outcome| serde_json::from_str::<Value>(&outcome.answer).unwrap_or_default()),
        "changed_pages": cell.checkpoint.map(|checkpoint| checkpoint.pages),
        "memory_bytes": cell.checkpoint.and_then(|checkpoint| checkpoint.memory_bytes),
        "has_checkpoint": cell.checkpoint.is_some(),
    })
}

fn first_line(code: &str) -> String {
    let mut lines = code.trim().lines();
    let line = lines.next().unwrap_or_default();
    let mut short: String = line.chars().take(CODE_CHARS).collect();
    if short.len() < line.len() || lines.next().is_some() {
        short.push_str(" ...");
    }
    out::harmless(&short)
}

/// `vmrepl sessions`.
pub(crate) fn sessions(
    action: Option<&SessionAction>,
    as_json: bool,
    environment: &Environment,
) -> Result<ExitCode> {
    match action {
        None => list(as_json, environment),
        Some(SessionAction::Pin { name }) => pin(name, true, environment),
        Some(SessionAction::Unpin { name }) => pin(name, false, environment),
        Some(SessionAction::Rm { name }) => {
            let mut book = book(name, environment)?;
            book.remove()?;
            let freed = collect(&environment.places, FRESH, false)?;
            out::line(&format!(
                "session {name} is gone; {} MB are free",
                freed.size.disk_bytes / 1_000_000
            ))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn pin(name: &str, is_pinned: bool, environment: &Environment) -> Result<ExitCode> {
    let mut history = open_history(&environment.places)?;
    let session = history.session(name).map_err(SessionError::History)?;
    history
        .pin(session.id, is_pinned)
        .map_err(SessionError::History)?;
    let state = if is_pinned {
        "pinned"
    } else {
        "no longer pinned"
    };
    out::line(&format!("session {name} is {state}"))?;
    Ok(ExitCode::SUCCESS)
}

fn list(as_json: bool, environment: &Environment) -> Result<ExitCode> {
    let history = open_history(&environment.places)?;
    let all = history.sessions().map_err(SessionError::History)?;
    let sizes = session_sizes(&environment.places)?;
    let size = |session: &SessionRow| sizes.get(&session.name).copied().unwrap_or(0);
    if as_json {
        let rows: Vec<Value> = all
            .iter()
            .map(|session| {
                json!({"name": session.name, "engine": session.engine, "template": session.template,
                    "origin": session.origin, "position": session.position, "cells": session.cells,
                    "created_ms": session.created_ms, "used_ms": session.used_ms,
                    "disk_bytes": size(session), "is_pinned": session.is_pinned})
            })
            .collect();
        out::line(&serde_json::to_string(&rows)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if all.is_empty() {
        out::note("no sessions yet; begin one: vmrepl -s NAME");
        return Ok(ExitCode::SUCCESS);
    }
    out::line(&format!(
        "{:<20} {:>5} {:>5} {:>9}  {:<12} {:<6} {:<14} {}",
        "NAME", "CELLS", "AT", "SIZE", "TEMPLATE", "ENGINE", "USED", "FROM"
    ))?;
    for session in &all {
        out::line(&format!(
            "{:<20} {:>5} {:>5} {:>6.1} MB  {:<12} {:<6} {:<14} {}{}",
            session.name,
            session.cells,
            session.position,
            size(session) as f64 / 1e6,
            session.template,
            session.engine,
            ago(session.used_ms),
            session.origin.as_deref().unwrap_or(""),
            if session.is_pinned { " (pinned)" } else { "" },
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How long ago, in the largest unit that fits.
fn ago(then_ms: i64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        });
    let seconds = (now - then_ms).max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// `vmrepl gc`.
pub(crate) fn gc(
    budget: Option<u64>,
    dry_run: bool,
    environment: &Environment,
) -> Result<ExitCode> {
    if let Some(budget) = budget {
        let thinned = thin(&environment.places, budget, dry_run)?;
        let verb = if dry_run { "would lose" } else { "lost" };
        for (name, cells) in &thinned.sessions {
            out::line(&format!(
                "session {name} {verb} the states after {cells} cells"
            ))?;
        }
        if thinned.bytes > budget {
            out::note(&format!(
                "what is left takes {:.1} MB, above the budget: it is where sessions stand, or pinned; see: vmrepl sessions",
                thinned.bytes as f64 / 1e6
            ));
        }
    }
    let collected = collect(&environment.places, FRESH, dry_run)?;
    let verb = if dry_run { "would go" } else { "are gone" };
    out::line(&format!(
        "{} snapshots ({} MB) {verb}, {} stay",
        collected.removed.len(),
        collected.size.disk_bytes / 1_000_000,
        collected.kept
    ))?;
    for damaged in &collected.damaged {
        out::note(&format!("snapshot {damaged} cannot be read, and stays"));
    }
    for missing in &collected.missing {
        out::note(&format!(
            "snapshot {missing}, which a session needs, is not there"
        ));
    }
    Ok(ExitCode::SUCCESS)
}
