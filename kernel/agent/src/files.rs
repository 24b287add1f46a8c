//! Port 1024: run programs, put and get files and folders. One request a connection.
//!
//! Served by a process of its own, split off from the agent: a crash costs one request. Before it touches a file it becomes
//! the ordinary user, so that a link that a cell has laid leads it nowhere the cell could not go; programs it starts as
//! whoever the request says, and stays itself, so that they cannot harm it.

mod connection;
mod content;

mod get;
mod put;
mod stat;
mod tree;

mod face;

mod exec;
mod run;
mod source;

use std::os::fd::OwnedFd;
use std::path::{Component, PathBuf};
use std::time::Instant;

use serde::Deserialize;
use vmrepl_wire::files::{FilesOp, FilesReply, FilesRequest, Tag, VERSION};

use connection::Connection;

use crate::exec::{Defaults, Hangup};
use crate::spawn::give_rights_up;
use crate::{ledger, log};

/// The exit code of the process: everything was said on the connection.
const SERVED: i32 = 0;

/// Serves one connection, whose descriptor blocks. Returns the process's exit code.
pub(crate) fn serve(socket: OwnedFd, defaults: &Defaults) -> i32 {
    let mut connection = Connection::new(socket);
    // A peer that hangs up is nobody's error.
    answer(&mut connection, defaults).ok();
    SERVED
}

fn answer(connection: &mut Connection, defaults: &Defaults) -> Result<(), Hangup> {
    let Some((Tag::Control, request)) = connection.frame()? else {
        return Ok(());
    };
    let op = match serde_json::from_slice::<FilesRequest>(&request) {
        Ok(FilesRequest { v: VERSION, op }) => op,
        Ok(FilesRequest { v, .. }) => {
            let error = format!("version {v} is not spoken here, version {VERSION} is");
            return connection.reply(&refusal(&request, error));
        }
        Err(error) => return connection.reply(&refusal(&request, format!("request: {error}"))),
    };
    let (kind, began) = (op.name(), Instant::now());
    let served = serve_op(connection, op, defaults);
    let (well, took) = (served.is_ok() && connection.succeeded, began.elapsed());
    ledger::count(kind, well, took);
    log::debug(format_args!("{kind}: well {well}, {} us", took.as_micros()));
    served
}

fn serve_op(connection: &mut Connection, op: FilesOp, defaults: &Defaults) -> Result<(), Hangup> {
    match op {
        FilesOp::Ping => connection.reply(&FilesReply {
            ok: true,
            op: Some("pong".to_owned()),
            agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            proto: Some(VERSION),
            ..FilesReply::default()
        }),
        FilesOp::Run {
            cmd,
            shell,
            timeout,
            env,
        } => {
            let order = run::Order {
                cmd,
                shell,
                timeout,
                env: env.into_iter().collect(),
            };
            run::run(connection, order, defaults)
        }
        FilesOp::Exec(start) => exec::exec(connection, start, defaults),
        FilesOp::ExecSource(order) => source::exec_source(connection, &order, defaults),
        op => {
            become_ordinary(defaults)?;
            files(connection, op)
        }
    }
}

/// What is done as the user whose files they are.
fn files(connection: &mut Connection, op: FilesOp) -> Result<(), Hangup> {
    match op {
        FilesOp::PutFile {
            path,
            name,
            mode,
            size,
        } => {
            let order = put::Order {
                path,
                name,
                mode,
                size_bytes: size,
            };
            put::put(connection, &order)
        }
        FilesOp::GetFile { path } => get::get(connection, &path),
        FilesOp::PutStream(order) => put::put_stream(connection, &order),
        FilesOp::GetStream { path } => get::get_stream(connection, &path),
        FilesOp::PutTree(order) => tree::put(connection, &order),
        FilesOp::GetTree { path } => tree::get(connection, &path),
        FilesOp::Stat { path, follow } => connection.reply(&stat::stat(&path, follow)),
        FilesOp::Ping | FilesOp::Run { .. } | FilesOp::Exec(_) | FilesOp::ExecSource(_) => {
            Err(Hangup)
        }
    }
}

/// Becomes the user whose files they are, at home. As anybody else no file is touched.
fn become_ordinary(defaults: &Defaults) -> Result<(), Hangup> {
    give_rights_up(defaults.identity).map_err(|error| {
        log::warn(format_args!("files port: {error}"));
        Hangup
    })?;
    if let Some(person) = &defaults.person {
        // Without it relative paths begin at the root, which is as lexical as any.
        rustix::process::chdir(&person.home).ok();
    }
    Ok(())
}

/// The answer to a request that cannot be followed; that of a command says so in `op`.
fn refusal(request: &[u8], error: String) -> FilesReply {
    #[derive(Deserialize)]
    struct Op {
        op: String,
    }
    let op = serde_json::from_slice::<Op>(request)
        .ok()
        .filter(|op| op.op == "run");
    FilesReply {
        op: op.map(|_| "error".to_owned()),
        ..failure(error)
    }
}

fn failure(error: String) -> FilesReply {
    FilesReply {
        error: Some(error),
        ..FilesReply::default()
    }
}

/// An absolute path without `.` and `..`, by its letters alone.
fn absolute(path: &str) -> PathBuf {
    let start = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let mut absolute = PathBuf::new();
    for component in start.join(path).components() {
        match component {
            Component::ParentDir => {
                absolute.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                absolute.push(component);
            }
        }
    }
    absolute
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn paths_become_absolute_by_their_letters() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute("a/./b/../c"), here.join("a/c"));
        assert_eq!(absolute("/a/../../../b"), Path::new("/b"));
    }
}
