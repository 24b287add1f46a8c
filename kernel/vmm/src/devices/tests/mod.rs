//! The devices against drivers that keep the rules, and against drivers that keep none.

mod block;
mod board;
mod disk;
pub(crate) mod long;
mod power;
mod random;
mod registers;
mod saved;
