//! Port 1024: run a command, put a file, get a file. One request a connection.
//!
//! Served by a process of its own, split off from the agent, that has become the ordinary user: a
//! link that a cell has laid leads it nowhere the cell could not go, and a crash costs one request.

mod connection;
mod get;
mod put;
mod run;

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use vmrepl_wire::files::{FilesOp, FilesReply, FilesRequest, Tag, VERSION};

use connection::{Connection, Hangup};

/// The exit code of the process: everything was said on the connection.
const SERVED: i32 = 0;

/// Serves one connection, whose descriptor blocks. Returns the process's exit code.
pub(crate) fn serve(socket: OwnedFd, home: Option<&Path>) -> i32 {
    if let Some(home) = home {
        // Without it relative paths begin at the root, which is as lexical as any.
        rustix::process::chdir(home).ok();
    }
    let mut connection = Connection::new(socket);
    // A peer that hangs up is nobody's error.
    answer(&mut connection, home).ok();
    SERVED
}

fn answer(connection: &mut Connection, home: Option<&Path>) -> Result<(), Hangup> {
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
                env,
            };
            run::run(connection, &order, home)
        }
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
        FilesOp::Exec(_) => connection.reply(&failure("exec is not served".to_owned())),
        FilesOp::GetFile { path } => get::get(connection, &path),
    }
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
    use super::*;

    #[test]
    fn paths_become_absolute_by_their_letters() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute("a/./b/../c"), here.join("a/c"));
        assert_eq!(absolute("/a/../../../b"), Path::new("/b"));
    }
}
