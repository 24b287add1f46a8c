//! A QEMU process driven as a machine, for hosts without usable KVM.
//!
//! In: a memory file, a read-only disk image and either a Linux to boot or a saved device state with
//! changed pages. Out: a jailed process, one byte stream to the guest's serial port, saved device
//! state, changed pages. Never: a parsed guest frame, a file published in a store, a network device.

mod binary;
mod clock;
mod command;
mod jail;
mod limits;
mod memory;
mod process;
mod qmp;
mod spawn;

pub use binary::{Binary, BinaryError, Version};
pub use clock::{CounterWatch, counter_khz};
pub use command::{Boot, CPU, Config, MACHINE_TYPE};
pub use jail::{JailFact, jail_facts};
pub use limits::{PAGE_BYTES, STATE_BYTES_MAX};
pub use memory::{GuestMemory, MemoryError};
pub use process::{Exit, Process, ProcessError};
pub use qmp::QmpError;
