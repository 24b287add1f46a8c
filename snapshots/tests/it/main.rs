//! The store against full disks, death at every step, damaged bytes, lies, and two writers at once.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where, and that is all it needs to say"
)]

mod acts;
mod forge;
mod ground;

mod chains;
mod damage;
mod deaths;
mod decoders;
mod encoded;
mod encoded_lies;
mod faults;
mod lies;
mod order;
mod together;
