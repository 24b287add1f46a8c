//! One process for each machine: its own address space, and a jail.

mod descriptors;
mod error;
pub(crate) mod jail;
pub(crate) mod message;
mod parts;
mod serve;

mod changed;
mod parent;
mod spare;

pub use changed::Changed;
pub use descriptors::keep_descriptors;
pub use error::WorkerError;
pub use parent::{Opener, Worker};
pub use parts::{Boot, Config, Page, Program, Restore};
pub use serve::work;
pub use spare::SpareWorker;
