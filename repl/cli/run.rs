//! One-shot runs: `-c`, a script, stdin; each on a fresh restore.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use vmrepl_line::Sanitiser;
use vmrepl_session::{
    Answer, Bundle, Cell, Event, Failure, Input, InputRequest, Language, Limits, Purpose, Session,
    Sink, Status, StoppedBy, Table, TemplateName, engine_for, get_file, make_folder_of,
    program_cell, put_file, siblings, table_size,
};

use crate::args::RunArgs;
use crate::exec::feed;
use crate::failure::{MissingError, UsageError};
use crate::input::{Hidden, Lines};
use crate::keep::Kept;
use crate::out;
use crate::places::Environment;
use crate::sessions;
use crate::signals::{Manner, Signals, Target};

/// What is to run, and what goes into the guest for it.
#[derive(Debug)]
struct Job {
    cell: Cell,
    /// Host file and guest path.
    files: Vec<(PathBuf, String)>,
    /// Guest path and host file.
    outs: Vec<(String, PathBuf)>,
    /// Stdin was the code, so cells find it empty.
    stdin_used: bool,
}

/// Runs what the arguments say and returns its exit code.
pub(crate) fn run(args: &RunArgs, environment: &Environment) -> Result<ExitCode> {
    let began = Instant::now();
    let name = TemplateName::new(&args.template)?;
    refuse_unknown_option(args)?;
    limits(args, Limits::default())?;
    let job = job(args)?;
    let signals = Signals::install()?;
    let mut session = match &args.session {
        Some(name) => sessions::open(args, name, None, environment)?.0,
        None => {
            let engine = engine_for(&environment.places, args.engine.into(), &name)?;
            Session::restore(&environment.places, &engine, &name, Purpose::Run)?
        }
    };
    session.set_limits(limits(args, session.limits())?);
    signals.aim(&Target {
        interrupter: session.interrupter(),
        manner: Manner::Hasty,
        grace: vmrepl_session::GRACE,
        is_kept: session.name().is_some(),
        run_folder: session.run_folder().path().to_owned(),
    });
    for (source, target) in &job.files {
        make_folder_of(&session, target)?;
        put_file(&session, source, target)?;
    }
    let mut sink = Printer::new(args, &signals, job.stdin_used);
    let answer = session.run(&job.cell, &mut sink);
    let broken_pipe = sink.broken_pipe;
    let kept = sink.kept;
    if let Some(code) = signals.ended_by() {
        return Ok(ExitCode::from(code));
    }
    if broken_pipe {
        return Ok(ExitCode::from(141));
    }
    let answer = answer?;
    finish(args, &answer, kept)?;
    for (source, target) in &job.outs {
        get_file(&session, source, target)?;
    }
    if args.timing {
        tell_times(&session, &answer, began);
    }
    if let Some(name) = &args.session {
        sessions::tell_fallen_back(&mut session, name);
    }
    session.leave()?;
    Ok(ExitCode::from(exit_code(&answer)))
}

/// The limits that the arguments set, over those that the session has.
pub(crate) fn limits(args: &RunArgs, limits: Limits) -> Result<Limits> {
    limits_over(&args.limits, limits)
}

/// Limits with wishes over them.
pub(crate) fn limits_over(wishes: &[String], mut limits: Limits) -> Result<Limits> {
    for wish in wishes {
        limits.set(wish).map_err(|error| UsageError {
            message: error.to_string(),
        })?;
    }
    Ok(limits)
}

/// What looks like an option in a script's place is one that we do not have.
fn refuse_unknown_option(args: &RunArgs) -> Result<()> {
    match args.script.first().map(|word| word.to_string_lossy()) {
        Some(word) if args.code.is_none() && word.starts_with('-') && word != "-" => {
            let message = format!("unknown option {word}; see: vmrepl --help");
            Err(UsageError { message }.into())
        }
        _ => Ok(()),
    }
}

fn job(args: &RunArgs) -> Result<Job> {
    let mut job = Job {
        cell: Cell {
            timeout: args.timeout,
            show_tables: args.show_tables || args.show_table_meta,
            show_table_meta: args.show_table_meta,
            allow_input: true,
            // What else runs as a program, a line for the shell, is not asked for input.
            feed: (args.language != Language::Python).then_some(feed),
            ..Cell::default()
        },
        files: Vec::new(),
        outs: Vec::new(),
        stdin_used: false,
    };
    if let Some(code) = &args.code {
        job.cell.code.clone_from(code);
        job.cell.argv = Some(words("-c", &args.script));
    } else if args.script.first().is_none_or(|first| first == "-") {
        code_from_stdin(args, &mut job)?;
    } else {
        code_from_file(args, &mut job)?;
    }
    if args.language != Language::Python {
        let words = job.cell.argv.as_deref().unwrap_or_default();
        let arguments = words.get(1..).unwrap_or_default();
        job.cell.code = program_cell(args.language, arguments, &job.cell.code);
    }
    for wish in &args.files {
        job.files.push(brought(wish)?);
    }
    for wish in &args.outs {
        job.outs.push(taken(wish)?);
    }
    Ok(job)
}

/// A program's name and its arguments.
fn words(name: &str, arguments: &[std::ffi::OsString]) -> Vec<String> {
    let arguments = arguments
        .iter()
        .map(|word| word.to_string_lossy().into_owned());
    std::iter::once(name.to_owned()).chain(arguments).collect()
}

fn code_from_stdin(args: &RunArgs, job: &mut Job) -> Result<()> {
    let mut code = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut code)
        .context("could not read the code from stdin")?;
    job.stdin_used = true;
    job.cell.code = utf8(code, "stdin")?;
    job.cell.argv = Some(words("-", args.script.get(1..).unwrap_or_default()));
    job.cell.filename = Some("<stdin>".to_owned());
    job.cell.feed = None;
    Ok(())
}

fn code_from_file(args: &RunArgs, job: &mut Job) -> Result<()> {
    let path = PathBuf::from(&args.script[0]);
    let code = std::fs::read(&path).map_err(|source| MissingError {
        message: format!("could not read the script {}", path.display()),
        source,
    })?;
    job.cell.code = utf8(code, &path.display().to_string())?;
    let name = path.file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    if args.language == Language::Python {
        for sibling in siblings(&path, &job.cell.code)? {
            let target = sibling.relative.display().to_string();
            job.files.push((sibling.source, target));
        }
        job.files.push((path, name.clone()));
    }
    job.cell.argv = Some(words(&name, &args.script[1..]));
    job.cell.filename = Some(name);
    Ok(())
}

fn utf8(code: Vec<u8>, what: &str) -> Result<String> {
    String::from_utf8(code).map_err(|error| {
        UsageError {
            message: format!(
                "{what} is not UTF-8 (byte {})",
                error.utf8_error().valid_up_to()
            ),
        }
        .into()
    })
}

/// `SRC[:DST]`; a colon in a file's own name wins when that file exists.
fn brought(wish: &str) -> Result<(PathBuf, String)> {
    let whole = Path::new(wish);
    let (source, target) = match wish.rsplit_once(':') {
        Some((source, target)) if !whole.exists() && !target.is_empty() => {
            (PathBuf::from(source), Some(target))
        }
        _ => (whole.to_owned(), None),
    };
    let facts = source.metadata().map_err(|error| MissingError {
        message: format!(
            "could not read the file {} of --file {wish}",
            source.display()
        ),
        source: error,
    })?;
    if !facts.is_file() {
        return Err(UsageError {
            message: format!("--file {wish}: {} is no regular file", source.display()),
        }
        .into());
    }
    let name = source
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok((source, target.map_or(name, str::to_owned)))
}

fn taken(wish: &str) -> Result<(String, PathBuf)> {
    match wish.split_once(':') {
        Some((guest, host)) if !guest.is_empty() && !host.is_empty() => {
            Ok((guest.to_owned(), PathBuf::from(host)))
        }
        _ => Err(UsageError {
            message: format!("--out {wish}: say GUEST:HOST"),
        }
        .into()),
    }
}

/// Prints what a cell says as it says it, or keeps it for the one object.
struct Printer<'a> {
    args: &'a RunArgs,
    signals: &'a Signals,
    stdin: Lines,
    stdin_used: bool,
    kept: Kept,
    broken_pipe: bool,
    /// Where an output is a terminal, it is kept from being steered.
    stdout: Option<Sanitiser>,
    stderr: Option<Sanitiser>,
}

impl<'a> Printer<'a> {
    fn new(args: &'a RunArgs, signals: &'a Signals, stdin_used: bool) -> Self {
        Self {
            args,
            signals,
            stdin: Lines::default(),
            stdin_used,
            kept: Kept::default(),
            broken_pipe: false,
            stdout: io::stdout().is_terminal().then(Sanitiser::default),
            stderr: io::stderr().is_terminal().then(Sanitiser::default),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stdout {
            Some(sanitiser) => out::raw(&sanitiser.filter(bytes)),
            None => out::raw(bytes),
        }
    }

    fn write_error(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stderr {
            Some(sanitiser) => out::raw_error(&sanitiser.filter(bytes)),
            None => out::raw_error(bytes),
        }
    }

    fn print(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Stdout(output) => self.write(output.as_bytes()),
            Event::Stderr(output) => self.write_error(output.as_bytes()),
            Event::Result(shown) | Event::Display(shown) => {
                self.write(bundle_text(&shown.bundle).as_bytes())
            }
            Event::Table(table) => {
                let text = format!("{} =\n{}\n", table.table.name, table_text(&table.table));
                self.write(text.as_bytes())
            }
            Event::Error(raised) => self.write_error(raised.traceback.as_bytes()),
            Event::InputRequest(_) | Event::Done(_) | Event::Unknown => Ok(()),
        }
    }
}

impl Sink for Printer<'_> {
    fn event(&mut self, event: &Event) {
        if self.broken_pipe {
            return;
        }
        let printed = match (self.args.json, self.args.stream) {
            (true, true) => out::raw(&vmrepl_session::to_line(event)),
            (true, false) => {
                self.kept.take(event);
                Ok(())
            }
            (false, _) => self.print(event),
        };
        // Whoever read our output has gone: nobody wants the rest.
        if printed.is_err() {
            self.broken_pipe = true;
            self.signals.give_up();
        }
    }

    fn input(&mut self, request: &InputRequest) -> Input {
        if self.stdin_used {
            return Input::End;
        }
        let _hidden = Hidden::when(request.password);
        let prompt = request.prompt.as_bytes();
        let shown = if self.args.json {
            self.write_error(prompt)
        } else {
            self.write(prompt)
        };
        if shown.is_err() {
            return Input::End;
        }
        self.stdin.next(self.signals)
    }
}

/// A value as a line of text; tables as tables, pictures by their description.
fn bundle_text(bundle: &Bundle) -> String {
    let mut text = match bundle.table() {
        Some(table) => table_text(&table),
        None => bundle.text().unwrap_or("").to_owned(),
    };
    text.push('\n');
    text
}

/// The preview with its size below.
fn table_text(table: &Table) -> String {
    format!("{}\n{}", table.preview, table_size(table))
}

fn finish(args: &RunArgs, answer: &Answer, kept: Kept) -> Result<()> {
    if args.json && args.stream {
        let event = Event::Done(Box::new(answer.clone()));
        out::raw(&vmrepl_session::to_line(&event))?;
    } else if args.json {
        out::raw(&vmrepl_session::to_line(&kept.complete(answer.clone())))?;
    } else {
        explain(args, answer);
    }
    Ok(())
}

/// Says what the cell's own words did not: why it ended, and what may help.
fn explain(args: &RunArgs, answer: &Answer) {
    let status = answer.status.unwrap_or(Status::Ok);
    // Its traceback has been shown where the interpreter ended it.
    let value = answer
        .error_value
        .as_ref()
        .filter(|value| !value.is_empty());
    let reason = value.or(answer.error.as_ref());
    let said = match status {
        Status::Interrupted => Some("interrupted".to_owned()),
        Status::Ok | Status::Error if answer.exit_code != 2 => None,
        Status::Timeout if args.timeout.is_some() => args
            .timeout
            .map(|time| format!("timed out after {} s", time.as_secs_f64())),
        Status::Timeout | Status::OutputExceeded => {
            Some(reason.cloned().unwrap_or_else(|| "out of time".to_owned()))
        }
        _ => answer.error.clone(),
    };
    let step = match answer.stopped_by {
        Some(StoppedBy::Kill) => "; what it had started was killed",
        Some(StoppedBy::Rollback) if args.session.is_some() => "; its state was thrown away",
        _ => "",
    };
    if let Some(said) = said {
        out::note(&format!("vmrepl: {}{step}", said.trim_end()));
    }
    let is_lost = matches!(status, Status::RunnerLost | Status::MachineLost);
    // A session with a name loses no names with its machine.
    let is_kept = args.session.is_some() && is_lost;
    if !args.quiet
        && !is_kept
        && let Some(hint) = vmrepl_session::hint_for(answer)
    {
        out::hint(&hint);
    }
}

/// The code's own number, or ours for what was not the code's doing.
fn exit_code(answer: &Answer) -> u8 {
    if let Some(failure) = answer.status.and_then(Failure::of_status) {
        return failure.exit_code();
    }
    u8::try_from(answer.exit_code & 0xFF).unwrap_or(1)
}

fn tell_times(session: &Session, answer: &Answer, began: Instant) {
    let times = session.times();
    let ms = |us: u64| us as f64 / 1000.0;
    let phases = [
        ("template opened", times.opened_us),
        ("process started", times.process_us),
        ("streams opened", times.linked_us),
        ("resume acknowledged", times.resumed_us),
        ("first cell done", times.first_cell_us),
    ];
    for (name, us) in phases {
        out::note(&format!("{name:>20}  {:8.2} ms", ms(us)));
    }
    if let Some(run) = answer
        .timing
        .as_ref()
        .and_then(|timing| timing.get("run_ms"))
    {
        out::note(&format!(
            "{:>20}  {run:8.2} ms (inside the guest)",
            "the code itself"
        ));
    }
    out::note(&format!(
        "{:>20}  {:8.2} ms",
        "whole",
        began.elapsed().as_secs_f64() * 1000.0
    ));
}
