//! `run`: a command line for a shell; its output as frames as it comes, then how it ended.

use std::path::Path;
use std::time::Duration;

use vmrepl_wire::exec::{ExecEnd, ExecLimits};
use vmrepl_wire::files::{FilesReply, Shell};

use super::connection::Connection;
use super::face::Frames;
use super::failure;
use crate::exec::{Account, Defaults, Hangup, Left, Program, Running, Stdio};

/// What the request says.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) cmd: String,
    pub(super) shell: Shell,
    pub(super) timeout: Option<f64>,
    pub(super) env: Vec<(String, String)>,
}

pub(super) fn run(
    connection: &mut Connection,
    order: Order,
    defaults: &Defaults,
) -> Result<(), Hangup> {
    let timeout = match order.timeout.map(Duration::try_from_secs_f64).transpose() {
        Ok(timeout) => timeout,
        Err(error) => return connection.reply(&refusal(format!("timeout: {error}"))),
    };
    let seconds = order.timeout;
    let started = program(order, defaults)
        .and_then(|program| Running::start(&program, defaults).map_err(|error| error.to_string()));
    let mut running = match started {
        Ok(running) => running,
        Err(error) => return connection.reply(&refusal(error)),
    };
    let mut face = Frames::new(connection, false)?;
    let ended = running.watch(&mut face, timeout)?;
    face.end(&match ended.end {
        ExecEnd::TimedOut => FilesReply {
            ok: true,
            op: Some("timeout".to_owned()),
            timeout: seconds,
            ..FilesReply::default()
        },
        _ => FilesReply {
            ok: true,
            op: Some("exit".to_owned()),
            exit_code: ended.left.map(code),
            ..FilesReply::default()
        },
    })
}

fn refusal(error: String) -> FilesReply {
    FilesReply {
        op: Some("error".to_owned()),
        ..failure(error)
    }
}

/// The command's own code, or minus the number of the signal that ended it.
fn code(left: Left) -> i32 {
    match left {
        Left::Code(code) => code,
        Left::Signal(signal) => -signal,
    }
}

fn program(order: Order, defaults: &Defaults) -> Result<Program, String> {
    let account = Account::find(None, defaults)?;
    let named = order.env.iter().rev().find(|(name, _)| name == "SHELL");
    let own = named
        .map(|(_, shell)| shell.clone())
        .or_else(|| match &account.person {
            Some(person) => Some(person.shell.clone()),
            None => std::env::var("SHELL").ok(),
        });
    let (shell, option) = match order.shell {
        Shell::Raw => (None, "-c"),
        Shell::Login => (own.filter(|shell| Path::new(shell).is_file()), "-lc"),
    };
    let shell = shell.unwrap_or_else(|| "/bin/sh".to_owned());
    let pairs = order.env.into_iter();
    Ok(Program {
        command: vec![shell.into(), option.into(), order.cmd.into()],
        called: None,
        env: pairs
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        cwd: None,
        account,
        stdio: Stdio::Pipes { input: false },
        limits: ExecLimits::default(),
        sandbox: None,
    })
}
