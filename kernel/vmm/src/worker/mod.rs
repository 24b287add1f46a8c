//! One process for each machine: its own address space, and a jail.

pub(crate) mod jail;
mod message;
mod parent;
mod serve;

pub use parent::{Boot, Changed, Config, Opener, Page, Program, Restore, Worker, WorkerError};
pub use serve::work;
