//! `exec` and `shell`: a program in the guest, with this process's input, output and terminal.

use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::SIGWINCH;
use signal_hook::iterator::Signals as Arrivals;
use vmrepl_line::Sanitiser;
use vmrepl_session::{
    Exec, ExecEnd, ExecEnded, ExecEvent, ExecInputs, ExecLimits, ExecStart, Limits, Opening,
    Purpose, Session, SessionError, SessionName, TemplateName, WindowSize, engine_for,
    open_history,
};

use crate::args::{ExecArgs, TargetArgs};
use crate::failure::UsageError;
use crate::out;
use crate::places::Environment;
use crate::run::limits_over;
use crate::signals::{Manner, PROGRAM_GRACE, Signals, Target};

/// What the record keeps of a program's output, in bytes.
const KEPT_BYTES: usize = 64 << 10;

/// Runs a program in a session or on a fresh restore of a template.
pub(crate) fn exec(args: &ExecArgs, environment: &Environment) -> Result<ExitCode> {
    let limits = limits_over(&args.limits, Limits::default())?;
    let start = ExecStart {
        command: args.command.clone(),
        tty: args.tty,
        window: args.tty.then(window).flatten(),
        stdin: args.interactive,
        env: variables(&args.env)?,
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        timeout: args.timeout.or(limits.time).map(|time| time.as_secs_f64()),
        limits: ExecLimits {
            cpu_ms: limits
                .cpu
                .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            memory_bytes: limits.memory_bytes,
            processes: limits.processes,
            ..ExecLimits::default()
        },
    };
    run(&args.target, start, environment)
}

/// A login shell on this terminal.
pub(crate) fn shell(
    args: &TargetArgs,
    user: Option<&str>,
    environment: &Environment,
) -> Result<ExitCode> {
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let start = ExecStart {
        tty: is_terminal,
        window: is_terminal.then(window).flatten(),
        stdin: true,
        env: variables(&[])?,
        user: user.map(str::to_owned),
        ..ExecStart::default()
    };
    run(args, start, environment)
}

fn run(target: &TargetArgs, mut start: ExecStart, environment: &Environment) -> Result<ExitCode> {
    if start.tty && !io::stdin().is_terminal() && start.stdin {
        return Err(UsageError {
            message: "-t needs a terminal as standard input; leave it out, or leave -i out"
                .to_owned(),
        }
        .into());
    }
    if start.tty {
        let term = std::env::var("TERM").ok().filter(|term| !term.is_empty());
        if let Some(term) = term {
            start.env.entry("TERM".to_owned()).or_insert(term);
        }
    }
    let signals = Signals::install()?;
    let mut session = open(target, environment)?;
    signals.aim(&Target {
        interrupter: session.interrupter(),
        manner: Manner::Hasty,
        grace: PROGRAM_GRACE,
        is_kept: session.name().is_some(),
        run_folder: session.run_folder().path().to_owned(),
    });
    let aside = session.begin_aside(&words(&start))?;
    let mut exec = session.exec(&start)?;
    session.runs_program(&exec);
    let mut console = Console::begin(&start, &exec.inputs())?;
    let ended = console.pass(&mut exec, &session);
    let said = console.end();
    drop(exec);
    session.runs_nothing();
    if let Some(code) = signals.ended_by() {
        return Ok(ExitCode::from(code));
    }
    let (code, ended) = match ended {
        Ok(Passed::Ended(ended)) => (ended.exit_code, Some(ended)),
        // Whoever read our output has gone: nobody wants the rest.
        Ok(Passed::BrokenPipe) => (141, None),
        Ok(Passed::GivenUp) => (130, None),
        Err(error) => {
            session.end_aside(&aside, 1, said)?;
            session.leave()?;
            return Err(error.into());
        }
    };
    session.end_aside(&aside, code, said)?;
    session.leave()?;
    if let Some(ended) = ended {
        explain(&ended);
    }
    Ok(ExitCode::from(u8::try_from(code & 0xFF).unwrap_or(1)))
}

fn explain(ended: &ExecEnded) {
    let why = match ended.end {
        ExecEnd::TimedOut => "it ran out of time, and was killed",
        ExecEnd::CpuExceeded => "it used its processor time up, and was killed",
        ExecEnd::MemoryExceeded => "it took more memory than it may, and was killed",
        ExecEnd::Exited | ExecEnd::Signalled | ExecEnd::NotStarted | ExecEnd::CompilationFailed => {
            return;
        }
    };
    out::note(&format!("vmrepl: {why}"));
}

/// The session of this name, where there is one; else a fresh restore of the template of this name.
pub(crate) fn open(target: &TargetArgs, environment: &Environment) -> Result<Session> {
    let places = &environment.places;
    let engine = target.engine;
    if let Ok(name) = SessionName::new(&target.name)
        && let Some(row) = open_history(places)?
            .find(name.as_str())
            .map_err(SessionError::History)?
    {
        let template = TemplateName::new(&row.template)?;
        let opening = Opening {
            name: &name,
            template: &template,
            engine: engine.into(),
            at: None,
            patience: target.wait.unwrap_or_default(),
            rng: vmrepl_session::RngPolicy::Keep,
            language: None,
        };
        return Ok(Session::open(places, &opening)?.0);
    }
    let template = TemplateName::new(&target.name)?;
    let restored = engine_for(places, engine.into(), &template)
        .and_then(|engine| Session::restore(places, &engine, &template, Purpose::Run));
    restored.map_err(|error| match error {
        SessionError::NoTemplate { .. } => {
            anyhow::Error::from(error).context(format!("there is no session {:?}", target.name))
        }
        error => error.into(),
    })
}

/// What the record calls it: a command that could be run again where nothing came from outside.
fn words(start: &ExecStart) -> String {
    let line: Vec<String> = start.command.iter().map(|word| quoted(word)).collect();
    let line = line.join(" ");
    match (start.tty, start.stdin) {
        _ if line.is_empty() => ":shell".to_owned(),
        (false, false) => format!("!{line}"),
        _ => format!(":exec {line}"),
    }
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "@%+=:,./-_".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// `NAME=VALUE`, or `NAME` for the value that this process has.
fn variables(wishes: &[String]) -> Result<std::collections::BTreeMap<String, String>> {
    let pairs = wishes.iter().map(|wish| match wish.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        None if !wish.is_empty() => match std::env::var(wish) {
            Ok(value) => Ok((wish.clone(), value)),
            Err(_) => Err(wish),
        },
        _ => Err(wish),
    });
    pairs.collect::<Result<_, _>>().map_err(|wish: &String| {
        UsageError {
            message: format!(
                "-e {wish}: say NAME=VALUE, or the NAME of a variable that is set here"
            ),
        }
        .into()
    })
}

fn window() -> Option<WindowSize> {
    let size = tcgetwinsize(io::stdout())
        .or_else(|_| tcgetwinsize(io::stdin()))
        .ok()?;
    Some(WindowSize {
        rows: size.ws_row,
        cols: size.ws_col,
    })
}

/// What came of passing bytes.
enum Passed {
    Ended(ExecEnded),
    GivenUp,
    BrokenPipe,
}

/// This process's streams while the program runs. Dropping it gives the terminal back as it was.
struct Console {
    before: Option<Termios>,
    is_terminal: bool,
    stdout: Option<Sanitiser>,
    stderr: Option<Sanitiser>,
    said: Vec<u8>,
    winch: Option<signal_hook::iterator::Handle>,
}

impl Console {
    fn begin(start: &ExecStart, inputs: &ExecInputs) -> Result<Self> {
        let mut console = Self {
            before: None,
            is_terminal: start.tty,
            // A terminal's own program may steer ours; what merely prints may not.
            stdout: (!start.tty && io::stdout().is_terminal()).then(Sanitiser::default),
            stderr: (!start.tty && io::stderr().is_terminal()).then(Sanitiser::default),
            said: Vec::new(),
            winch: None,
        };
        if start.tty && io::stdin().is_terminal() {
            let before =
                tcgetattr(io::stdin()).context("could not read the terminal's settings")?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(io::stdin(), OptionalActions::Now, &raw)
                .context("could not set the terminal")?;
            console.before = Some(before);
        }
        if start.tty {
            let mut arrivals =
                Arrivals::new([SIGWINCH]).context("could not watch the terminal's size")?;
            console.winch = Some(arrivals.handle());
            let inputs = inputs.clone();
            // Ends by its handle.
            let _detached = thread::spawn(move || {
                for _ in arrivals.forever() {
                    if window().is_some_and(|size| inputs.resize(size).is_err()) {
                        break;
                    }
                }
            });
        }
        if start.stdin {
            let inputs = inputs.clone();
            // Ends with the input, or with the process.
            let _detached = thread::spawn(move || feed(&inputs));
        }
        Ok(console)
    }

    /// Prints what the program says until it has ended.
    fn pass(&mut self, exec: &mut Exec, session: &Session) -> Result<Passed, SessionError> {
        loop {
            if session.is_given_up() {
                return Ok(Passed::GivenUp);
            }
            let printed = match exec.hear()? {
                ExecEvent::Quiet => Ok(()),
                ExecEvent::Ended(ended) => return Ok(Passed::Ended(ended)),
                ExecEvent::Stdout(bytes) => {
                    self.keep(&bytes);
                    match &mut self.stdout {
                        Some(sanitiser) => out::raw(&sanitiser.filter(&bytes)),
                        None => out::raw(&bytes),
                    }
                }
                ExecEvent::Stderr(bytes) => {
                    self.keep(&bytes);
                    match &mut self.stderr {
                        Some(sanitiser) => out::raw_error(&sanitiser.filter(&bytes)),
                        None => out::raw_error(&bytes),
                    }
                }
            };
            if printed.is_err() {
                return Ok(Passed::BrokenPipe);
            }
        }
    }

    /// The last of it is what tells how it ended. What a terminal shows is not for reading.
    fn keep(&mut self, bytes: &[u8]) {
        if self.is_terminal {
            return;
        }
        self.said.extend_from_slice(bytes);
        if self.said.len() > 2 * KEPT_BYTES {
            self.said.drain(..self.said.len() - KEPT_BYTES);
        }
    }

    /// Gives the terminal back. Returns what the record keeps.
    fn end(mut self) -> String {
        let said = std::mem::take(&mut self.said);
        String::from_utf8_lossy(&said[said.len().saturating_sub(KEPT_BYTES)..]).into_owned()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(winch) = self.winch.take() {
            winch.close();
        }
        if let Some(before) = self.before.take() {
            // A terminal that is gone needs no repair.
            let (Ok(()) | Err(_)) = tcsetattr(io::stdin(), OptionalActions::Now, &before);
        }
    }
}

/// Sends this process's input to the program.
pub(crate) fn feed(inputs: &ExecInputs) {
    let mut buffer = vec![0; 64 << 10];
    let mut stdin = io::stdin().lock();
    loop {
        let sent = match stdin.read(&mut buffer) {
            Ok(0) => {
                drop(inputs.end());
                return;
            }
            Ok(count) => inputs.bytes(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(_) => {
                drop(inputs.end());
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        let start = |words: &[&str], stdin| ExecStart {
            command: words.iter().map(|word| (*word).to_owned()).collect(),
            stdin,
            ..ExecStart::default()
        };
        assert_eq!(
            words(&start(&["ls", "a b", "it's"], false)),
            "!ls 'a b' 'it'\\''s'"
        );
        assert_eq!(words(&start(&["cat"], true)), ":exec cat");
        assert_eq!(words(&start(&[], true)), ":shell");
    }
}
