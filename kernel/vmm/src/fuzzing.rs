//! What the fuzz targets and the tests run on bytes that a guest, or whoever wrote a snapshot, may have made. Each
//! function panics when the monitor does something that it must not do, and returns otherwise.

mod ring;
mod saved;
mod script;
#[cfg(test)]
mod tests;

pub use crate::devices::fuzzing::{block, devices};
pub use crate::vsock::fuzzing::vsock;
pub use saved::saved;

pub(crate) use ring::{INDIRECT, NEXT, Ring, WRITE};
pub(crate) use script::Script;
