//! The device against a guest that keeps the rules, and against one that does not.

mod client;
mod closing;
mod flow;
mod guest;
mod lies;
mod opening;
mod random;
pub(crate) mod ring;
mod saving;
