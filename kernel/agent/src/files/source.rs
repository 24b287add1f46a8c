//! `exec_source`: a program of the machine's user that comes as its source.

use std::time::{Duration, Instant};

use vmrepl_wire::exec::{ExecEnd, ExecSource, ExecStart};
use vmrepl_wire::files::FilesReply;

use super::connection::Connection;
use super::exec::{code, ended, refuse_environment, stdio};
use super::face::Frames;
use super::failure;
use crate::exec::{Account, Defaults, Ended, Hangup, Program, Running};
use crate::languages::{Built, Owner, Source};
use crate::limits;
use crate::sandbox::Sandbox;

pub(super) fn exec_source(
    connection: &mut Connection,
    order: &ExecSource,
    defaults: &Defaults,
) -> Result<(), Hangup> {
    let prepared = prepare(order, defaults);
    let (source, timeout) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return connection.reply(&failure(error)),
    };
    let mut frames = Frames::new(connection, true)?;
    match build_and_run(&source, &order.start, timeout, &mut frames, defaults) {
        Ok(Some(reply)) => frames.end(&reply),
        Ok(None) => Err(Hangup),
        Err(error) => frames.end(&failure(error)),
    }
}

/// Checks the request, and makes the folder where it is compiled: this process's own, like all that is mounted here.
fn prepare<'a>(
    order: &'a ExecSource,
    defaults: &Defaults,
) -> Result<(Source<'a>, Option<Duration>), String> {
    if defaults.groups.is_none() {
        return Err("programs from their source need a machine around them".to_owned());
    }
    let start = &order.start;
    let timeout = start.timeout.map(Duration::try_from_secs_f64).transpose();
    let timeout = timeout.map_err(|error| format!("timeout: {error}"))?;
    refuse_environment(&start.env)?;
    let account = Account::find(start.user.as_deref(), defaults)?;
    let identity = account.identity;
    let source = Source::new(order.language, order.code.as_bytes(), Owner::User(account))?;
    let opened = Sandbox::new().and_then(|own| own.open_box(limits::BOX_BYTES, identity));
    opened.map_err(|error| format!("make the program's folder: {error}"))?;
    Ok((source, timeout))
}

fn build_and_run(
    source: &Source<'_>,
    start: &ExecStart,
    timeout: Option<Duration>,
    frames: &mut Frames<'_>,
    defaults: &Defaults,
) -> Result<Option<FilesReply>, String> {
    let began = Instant::now();
    let left = |most: Option<Duration>| match (timeout, most) {
        (Some(timeout), most) => {
            let left = timeout.saturating_sub(began.elapsed());
            Some(most.map_or(left, |most| left.min(most)))
        }
        (None, most) => most,
    };
    frames.hold_input();
    let built =
        source.build(&mut |compiler, most| one(compiler, left(Some(most)), frames, defaults))?;
    match built {
        None => return Ok(None),
        Some(Built::Failed { ended: failed, .. }) => {
            let end = match failed.end {
                ExecEnd::Exited => ExecEnd::CompilationFailed,
                other => other,
            };
            return Ok(Some(ended(end, code(&failed))));
        }
        Some(Built::Ready { .. }) => frames.release_input(),
    }
    let mut program = source.runs(start.command.clone(), stdio(start), start.limits);
    let pairs = start.env.iter();
    program
        .env
        .extend(pairs.map(|(name, value)| (name.into(), value.into())));
    if let Some(cwd) = &start.cwd {
        program.cwd = Some(cwd.into());
    }
    let end = one(&program, left(None), frames, defaults)?;
    Ok(end.map(|end| FilesReply {
        usage: Some(end.usage),
        ..ended(end.end, code(&end))
    }))
}

/// Runs one program to its end.
fn one(
    program: &Program,
    wall: Option<Duration>,
    frames: &mut Frames<'_>,
    defaults: &Defaults,
) -> Result<Option<Ended>, String> {
    let mut running = Running::start(program, defaults).map_err(|error| error.to_string())?;
    Ok(running.watch(frames, wall).ok())
}
