//! Running programs for whoever asks on whichever port: one core, to which the ports are thin faces.
//!
//! In: a [`Program`], and a [`Face`] that brings its input and takes its output. Out: how it ended and what it took. It runs
//! in a process split off from the agent for this one request, which sees to it that nothing of the program's is left when
//! it is killed or its peer has gone.

mod account;
mod child;
mod group;
mod running;
mod terminal;

use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) use account::Account;
pub(crate) use child::{Program, Stdio, Stream};
pub(crate) use group::{kill_group_of, sweep_groups};
pub(crate) use running::{Ended, Face, Input, Left, Running};

use crate::environment::Person;
use crate::spawn::Identity;

/// What a program gets when its request does not say otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    /// Whom it runs as.
    pub(crate) identity: Identity,
    /// That user; none on a host, where programs inherit what the agent has.
    pub(crate) person: Option<Person>,
    /// The image's environment.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The control group whose parts are the programs' groups.
    pub(crate) groups: Option<PathBuf>,
    /// The program that speaks gRPC; without it nobody does.
    pub(crate) grpc: Option<PathBuf>,
}

/// The peer has gone, or lost step: there is nobody to tell.
#[derive(Debug)]
pub(crate) struct Hangup;
