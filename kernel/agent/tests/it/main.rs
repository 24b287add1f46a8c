//! The agent's binary, driven from outside: over Unix sockets and a multiplexed stream, with the
//! real runner, and with a runner that lies.
#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has said what is wrong"
)]

mod agent;
mod binary;
mod cells;
mod channel;
mod control;
mod copying;
mod exec;
mod files;
mod interrupts;
mod lies;
mod losses;
mod output;
mod vsock;
