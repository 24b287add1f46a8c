//! One process for each machine: its own address space, and a jail.

mod jail;
mod message;
mod pages;
mod parent;
mod serve;

pub use parent::{Boot, Config, Opener, Page, Program, Worker, WorkerError};
pub use serve::work;
