//! The agent: PID 1 of a guest, and on a host the same program without a machine.
//!
//! In: connections from the host, through the channel of a machine or a Unix socket. Out: what the
//! cells print and answer, and the agent's own words on the control port. Never here: what Python
//! is, what a snapshot is, or code of a cell.

mod ledger;
mod limits;
mod log;
mod options;

mod inherited;
mod outbox;
mod poller;
mod processes;
mod resume;
mod signals;

mod spawn;

mod sandbox;

mod launch;

mod boot;
mod bounds;
mod environment;

mod channel;
mod client;
mod listener;

mod clients;

mod output;
mod requests;
mod runner;

mod keeper;
mod relay;

mod core;

mod exec;

mod blocking;

mod control;

mod files;
mod grpc;
mod languages;

mod workers;

mod agent;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::agent::{Agent, CHANNEL, LISTENERS};
use crate::boot::{HOME, Machine, USER_ID};
use crate::channel::Channel;
use crate::clients::Clients;
use crate::core::Core;
use crate::environment::{Person, read_environment};
use crate::exec::Defaults;
use crate::keeper::Keeper;
use crate::listener::{Listener, Trust};
use crate::options::{HostOptions, Place};
use crate::poller::Poller;
use crate::runner::Recipe;
use crate::signals::Signals;
use crate::spawn::Identity;
use crate::workers::Workers;

/// The image's environment for the runner.
const ENVIRONMENT: &str = "/etc/vmrepl/env";

fn main() -> ExitCode {
    ledger::open();
    if rustix::process::getpid().is_init() && std::env::args_os().len() <= 1 {
        in_machine();
        // Only when Linux refused to power off: the end of PID 1 stops the machine too.
        return ExitCode::FAILURE;
    }
    match on_host() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error(format_args!("{}", chain(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

type AnyError = Box<dyn std::error::Error>;

fn in_machine() {
    let ended = boot::boot().map_err(AnyError::from).and_then(serve_machine);
    if let Err(error) = ended {
        log::error(format_args!("{}", chain(error.as_ref())));
    }
    boot::power_off();
}

fn serve_machine(machine: Machine) -> Result<(), AnyError> {
    let Machine {
        options,
        cgroups,
        runner,
        grpc,
    } = machine;
    let signals = Signals::new()?;
    let poller = Poller::new()?;
    let channel = channel::open_serial_port()?
        .map(|device| Channel::new(device, CHANNEL, &poller))
        .transpose()?;
    let mut listeners = Vec::new();
    if listener::has_vsock() {
        let place = Place::Vsock { shift: 0 };
        listeners = Listener::open(&place, Trust::Host, LISTENERS, &poller)?;
    } else if channel.is_none() {
        return Err("neither a serial port named vmrepl.0 nor a vsock device".into());
    }
    if let Err(error) = spawn::schedule_behind_others() {
        log::note(format_args!("scheduling: {error}"));
    }
    let identity = Identity::User {
        user: USER_ID,
        group: USER_ID,
    };
    let person = Some(Person {
        name: "user".to_owned(),
        home: PathBuf::from(HOME),
        shell: boot::shell().to_owned(),
    });
    let environment = read_environment(Path::new(ENVIRONMENT));
    let workers = Workers::new(Defaults {
        identity,
        person: person.clone(),
        environment: environment.clone(),
        groups: Some(PathBuf::from(boot::EXEC_GROUPS)),
        grpc,
    });
    let recipe = Recipe {
        python: options.python,
        package: runner,
        identity,
        person,
        environment,
    };
    let core = Core::new(Clients::new(channel), Keeper::new(recipe, Some(cgroups)));
    let knocks = !listeners.is_empty();
    let mut agent = Agent::new(poller, signals, listeners, workers, core)?;
    if knocks {
        listener::knock();
    }
    agent.run()?;
    Ok(())
}

fn on_host() -> Result<(), AnyError> {
    let options = HostOptions::parse(std::env::args_os().skip(1))?;
    // First of all, before the agent opens descriptors of its own.
    let channel = options.channel.map(inherited::take).transpose()?;
    let poller = Poller::new()?;
    let listeners = match &options.listen {
        Some(place) => Listener::open(place, Trust::Anybody, LISTENERS, &poller)
            .map_err(|error| format!("listen: {error}"))?,
        None => Vec::new(),
    };
    let channel = channel
        .map(|socket| Channel::new(socket, CHANNEL, &poller))
        .transpose()?;
    let signals = Signals::new()?;
    // Orphans of cells become children of the agent, as they are in a machine.
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).map_err(io::Error::from)?;
    let recipe = Recipe {
        python: options.python,
        package: options.runner,
        identity: Identity::Same,
        person: None,
        environment: Vec::new(),
    };
    let core = Core::new(Clients::new(channel), Keeper::new(recipe, None));
    let workers = Workers::new(Defaults {
        identity: Identity::Same,
        person: None,
        environment: Vec::new(),
        groups: None,
        grpc: options.exec,
    });
    Agent::new(poller, signals, listeners, workers, core)?.run()?;
    Ok(())
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
