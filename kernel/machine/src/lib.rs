//! One machine, whichever engine runs it.
//!
//! In: hardware and files as plain data, saved state as bytes, pages. Out: a live machine, byte streams
//! to its ports, its state and changed pages from a guard that resumes on drop. Never: a file published,
//! a frame of a cell parsed, a session.

mod error;
mod parts;

mod door;
mod kvm;

mod link;
mod listen;
mod pump;
mod qemu;
mod state;
mod stream;

mod engine;
mod spare;

mod machine;

pub use engine::Engine;
pub use error::MachineError;
pub use kvm::{Kvm, KvmMachine};
pub use link::{LinkError, LostReason};
pub use machine::{Machine, Paused, Restored};
pub use parts::{Boot, Frozen, Hardware, Mark, Page, Restore};
pub use qemu::QemuMachine;
pub use spare::Spare;
pub use state::STATE_VERSION;
pub use vmrepl_qemu::{CounterWatch, GuestMemory, JailFact, counter_khz, jail_facts};
pub use vmrepl_vmm::{
    PAGE_BYTES, Phases, Purpose, encode_hot_pages, keep_descriptors, work as kvm_worker,
};
