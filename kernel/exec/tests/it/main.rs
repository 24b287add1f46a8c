//! The real program between a real gRPC client and an agent's core that the test plays, frame by frame.
#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has said what is wrong"
)]

mod client;
mod core;
mod process;

mod bounds;
mod endings;
mod files;
mod programs;
