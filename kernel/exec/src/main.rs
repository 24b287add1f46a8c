//! gRPC on the guest's port 2222, as a process of its own for each connection.
//!
//! In: one accepted connection, on which a client speaks HTTP/2. Out: for each call a connection to the agent's core, and the
//! frames of `vmrepl_wire::files` on it. Never here: a process that is started, a file that is opened, a right that the agent
//! has and this process has not.

mod limits;
mod options;

mod inherited;
mod proto;

mod core;
mod status;

mod calls;
mod connection;

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use crate::calls::Calls;
use crate::core::Core;
use crate::options::Options;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("vmrepl-exec: {}\n", chain(error.as_ref()));
            // Nobody is left to be told when this fails.
            drop(io::stderr().write_all(line.as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(std::env::args_os().skip(1))?;
    // First of all, before this process opens descriptors of its own.
    let connection = inherited::take(options.connection)?;
    let core = inherited::take(options.core)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let calls = Calls::new(Arc::new(Core::new(core)?));
        connection::serve(connection, &calls).await
    })?;
    // With the runtime go the calls that are still open, and with each its connection to the core.
    drop(runtime);
    Ok(())
}

/// An error and its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
