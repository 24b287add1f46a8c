//! Facts about Python source, found on the host without a machine.
//!
//! In: the text of a cell, whole or still being typed. Out: whether it is a whole cell, which names it binds,
//! and what colours it has. Never here: I/O, state, a guest, an opinion where the guest's may differ.
//!
//! The guest's own Python has the last word on everything. Where this crate cannot be sure of that word it says
//! so, and never stops a cell.

mod scan;
mod whitespace;

mod javascript;
mod limits;
mod parse;

mod completeness;
mod names;
mod spans;

pub use completeness::{Completeness, Fault, completeness};
pub use javascript::javascript_spans;
#[cfg(feature = "rustpython")]
pub use names::rustpython;
pub use names::{Names, names};
pub use spans::{Class, Span, spans};
