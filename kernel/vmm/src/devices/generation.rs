//! The generation identifier: 16 bytes in guest memory that are others in every copy of a machine, so that a guest's
//! kernel can tell that it is one and draw new randomness.
//!
//! Standard: "Virtual Machine Generation ID", <https://go.microsoft.com/fwlink/?LinkId=260709>.
//!
//! A guest is told only after its kernel has asked where the identifier lies, by ACPI's method `ADDR`: an interrupt
//! and a page that changes would cost every other guest something for nothing.

use rustix::rand::GetRandomFlags;
use vm_memory::{Bytes as _, GuestAddress};

use super::Broken;
use crate::layout::GENERATION_ID;
use crate::ram::Memory;

/// Whether the guest has asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) is_asked: bool,
}

impl Generation {
    /// Changes the identifier. Whether the guest is to be told.
    pub(super) fn renew(self, memory: &Memory) -> Result<bool, Broken> {
        if !self.is_asked {
            return Ok(false);
        }
        let mut identifier = [0; 16];
        rustix::rand::getrandom(&mut identifier, GetRandomFlags::empty())
            .map_err(|errno| Broken::new(format!("no randomness for a generation: {errno}")))?;
        memory
            .write_slice(&identifier, GuestAddress(GENERATION_ID))
            .map_err(|error| Broken::new(format!("the generation's page: {error}")))?;
        Ok(true)
    }
}
