//! Port 52000: programs of strangers in many languages, each compiled and run in a sandbox of its own.
//!
//! A connection takes one request after the other. Each is acknowledged when it is understood, and always answered.

mod build;
mod cache;
mod connection;
mod face;
mod run;
mod table;

pub(crate) use build::{Built, Owner, Source};

use std::os::fd::OwnedFd;
use std::time::Instant;

use vmrepl_wire::languages::{ErrorKind, Execute, Outcome, Refusal, Reply, Status};

use crate::exec::{Defaults, Hangup};
use crate::sandbox::Sandbox;
use crate::{ledger, log};
use connection::{Connection, Message};

/// Serves one connection, whose descriptor blocks. Returns the process's exit code.
pub(crate) fn serve(socket: OwnedFd, defaults: &Defaults) -> i32 {
    let mut connection = Connection::new(socket);
    // A peer that hangs up is nobody's error.
    converse(&mut connection, defaults).ok();
    0
}

fn converse(connection: &mut Connection, defaults: &Defaults) -> Result<(), Hangup> {
    let mut sandbox = None;
    loop {
        let request = match connection.message()? {
            None => return Ok(()),
            Some(Message::Payload(payload)) => Execute::parse(&payload),
            Some(Message::TooLong(message)) => {
                let error = ErrorKind::InvalidRequest;
                let id = String::new();
                // Nothing behind it can be read.
                return connection.say(&Refusal { id, error, message }.into());
            }
        };
        let request = match request {
            Ok(request) => request,
            Err(refusal) => {
                connection.say(&refusal.into())?;
                continue;
            }
        };
        if let Some(lack) = build::lack(request.language) {
            let (id, error) = (request.id, ErrorKind::UnsupportedLanguage);
            let message = format!("`language`: {lack}");
            connection.say(&Refusal { id, error, message }.into())?;
            continue;
        }
        connection.say(&Reply::ack(&request.id))?;
        // The agent carries it on, and it does not interrupt who runs: the many calls of a start would come first.
        rustix::thread::sched_yield();
        let made = match sandbox.take() {
            Some(made) => Ok(made),
            None => Sandbox::new()
                .map(std::sync::Arc::new)
                .map_err(|error| error.to_string()),
        };
        let (kind, began) = (request.language.name(), Instant::now());
        let answered = made.and_then(|made| {
            sandbox = Some(std::sync::Arc::clone(&made));
            run::run(connection, &request, &made, defaults)
        });
        let is_success = |outcome: &Outcome| outcome.status == Status::Success;
        let well = matches!(&answered, Ok(Some(outcome)) if is_success(outcome));
        ledger::count(kind, well, began.elapsed());
        match answered {
            Ok(None) => return Err(Hangup),
            Ok(Some(outcome)) => connection.say(&outcome.into())?,
            Err(message) => {
                log::warn(format_args!("port 52000: {message}"));
                let (id, error) = (request.id, ErrorKind::InternalError);
                connection.say(&Refusal { id, error, message }.into())?;
            }
        }
    }
}
