//! `exec`: a program with input, on a terminal if wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use vmrepl_wire::exec::{BY_SIGNAL, ExecEnd, ExecStart, TIMED_OUT, WindowSize};
use vmrepl_wire::files::{FilesReply, Tag};

use super::connection::Connection;
use super::face::Frames;
use super::failure;
use crate::exec::{Account, Defaults, Ended, Hangup, Left, Program, Running, Stdio};

/// The size of a terminal that nobody has told.
const WINDOW: WindowSize = WindowSize { rows: 24, cols: 80 };

pub(super) fn exec(
    connection: &mut Connection,
    start: ExecStart,
    defaults: &Defaults,
) -> Result<(), Hangup> {
    let (program, timeout) = match program(start, defaults) {
        Ok(understood) => understood,
        Err(error) => return connection.reply(&failure(error)),
    };
    let mut running = match Running::start(&program, defaults) {
        Ok(running) => running,
        Err(error) => {
            connection.send(Tag::Stderr, format!("{error}\n").as_bytes())?;
            return connection.reply(&ended(ExecEnd::NotStarted, error.exit_code()));
        }
    };
    let mut face = Frames::new(connection, true)?;
    let end = running.watch(&mut face, timeout)?;
    face.end(&FilesReply {
        usage: Some(end.usage),
        ..ended(end.end, code(&end))
    })
}

pub(super) fn ended(end: ExecEnd, code: i32) -> FilesReply {
    FilesReply {
        ok: true,
        op: Some("exit".to_owned()),
        exit_code: Some(code),
        end: Some(end),
        ..FilesReply::default()
    }
}

/// The number that a shell gives.
pub(super) fn code(ended: &Ended) -> i32 {
    match (ended.end, ended.left) {
        (ExecEnd::TimedOut, _) => TIMED_OUT,
        (_, Some(Left::Code(code))) => code,
        (_, Some(Left::Signal(signal))) => BY_SIGNAL + signal,
        (_, None) => BY_SIGNAL + libc::SIGKILL,
    }
}

pub(super) fn refuse_environment(env: &BTreeMap<String, String>) -> Result<(), String> {
    let is_no_name = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    if let Some(name) = env.keys().find(is_no_name) {
        return Err(format!("env: {name:?} is no name of a variable"));
    }
    match env.iter().find(|(_, value)| value.contains('\0')) {
        Some((name, _)) => Err(format!("env: the value of {name} holds a zero byte")),
        None => Ok(()),
    }
}

pub(super) fn stdio(start: &ExecStart) -> Stdio {
    match start.tty {
        true => Stdio::Terminal(start.window.unwrap_or(WINDOW)),
        false => Stdio::Pipes { input: start.stdin },
    }
}

fn program(start: ExecStart, defaults: &Defaults) -> Result<(Program, Option<Duration>), String> {
    let timeout = start.timeout.map(Duration::try_from_secs_f64).transpose();
    let timeout = timeout.map_err(|error| format!("timeout: {error}"))?;
    let account = Account::find(start.user.as_deref(), defaults)?;
    let stdio = stdio(&start);
    let (mut command, mut called) = (start.command, None);
    if command.is_empty() {
        let own = account.person.as_ref().map(|person| person.shell.clone());
        let shell = own.unwrap_or_else(|| "/bin/sh".to_owned());
        // What a login shell is known by.
        let name = shell.rsplit('/').next().unwrap_or("sh");
        called = Some(format!("-{name}").into());
        command = vec![shell];
    }
    refuse_environment(&start.env)?;
    let pairs = start.env.into_iter();
    let program = Program {
        command: command.into_iter().map(Into::into).collect(),
        called,
        env: pairs
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        cwd: start.cwd.map(Into::into),
        account,
        stdio,
        limits: start.limits,
        sandbox: None,
    };
    Ok((program, timeout))
}
