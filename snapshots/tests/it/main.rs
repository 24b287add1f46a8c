//! The store against full disks, death at every step, damaged bytes, lies, and two writers at once.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where, and that is all it needs to say"
)]

mod acts;
mod ground;

mod deaths;
mod faults;
mod order;
