//! One process for each machine: its own address space, and a jail.

mod changed;
pub(crate) mod jail;
pub(crate) mod message;
mod parent;
mod serve;

pub use changed::Changed;
pub use parent::{Boot, Config, Opener, Page, Program, Restore, Worker, WorkerError};
pub use serve::work;
