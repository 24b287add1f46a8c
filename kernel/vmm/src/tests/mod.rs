//! The monitor as a whole: states that lie, and guests of a few instructions on this host's KVM.

mod clocks;
mod ends;
mod jailed;
mod many;
mod pages;
mod program;
mod saving;
pub(crate) mod states;
mod tiny;
