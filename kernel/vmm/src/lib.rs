//! The embedded monitor: machines on KVM, one worker process each.
//!
//! In: a Linux and its files, or a saved state and its pages, as descriptors; sockets for streams to guest
//! ports. Out: a running machine, its state as bytes, the pages it has written. Never: a store, a session, what
//! a stream carries.
//!
//! Reading order: where things lie and what bounds them; memory and processors' features; devices; the state
//! as bytes; a machine in this process; the worker that runs one in a jail.

mod layout;
mod limits;
mod spec;

mod cpuid;
mod hot;
mod mapping;
mod ram;

mod boot;
mod devices;
mod vsock;

mod lapic;
mod state;
mod vcpu;

mod clocks;
mod machine;
mod marks;
mod parts;
mod phases;
mod processors;
mod shell;

mod worker;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod tests;

pub use boot::BootError;
pub use clocks::ClockError;
pub use cpuid::host_vendor;
pub use devices::{Broken, StateError};
pub use hot::encode_hot_pages;
pub use limits::PAGE_BYTES;
pub use machine::{Frozen, Machine, MachineError};
pub use parts::{BootFiles, EmptyMachine, Parts, Purpose, Saved};
pub use phases::Phases;
pub use processors::MachineEnd;
pub use ram::RamError;
pub use shell::ShellError;
pub use state::STATE_VERSION;
pub use vcpu::VcpuError;
pub use vsock::Greeting;
pub use worker::{
    Boot, Changed, Config, Opener, Page, Program, Restore, SpareWorker, Worker, WorkerError,
    keep_descriptors, work,
};
