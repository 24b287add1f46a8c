//! The interrupt controller that devices raise their lines at. Local APICs are KVM's; this one is ours, so
//! that a machine has nothing to set up in KVM but them.
//!
//! Standard: Intel 82093AA, <https://pdos.csail.mit.edu/6.828/2018/readings/ia32/ioapic.pdf>. All lines here
//! are edge-triggered: an interrupt is one message to a local APIC, and its end never comes back.

use crate::layout::{IOAPIC, IOAPIC_BYTES};

/// Lines of the controller.
pub(crate) const LINES: usize = 24;

const VERSION: u32 = 0x11;
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const REGISTER_ID: u8 = 0;
const REGISTER_VERSION: u8 = 1;
const REGISTER_ARBITRATION: u8 = 2;
const REGISTER_TABLE: u8 = 0x10;

const MASKED: u64 = 1 << 16;
/// Delivery status and remote IRR are the controller's own.
const READ_ONLY: u64 = (1 << 12) | (1 << 14);
const LEVEL: u64 = 1 << 15;
const LOGICAL: u64 = 1 << 11;

/// Address and data of the message that a line sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) address: u32,
    pub(crate) data: u32,
}

/// What the controller remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IoapicState {
    pub(crate) id: u32,
    pub(crate) select: u8,
    pub(crate) table: [u64; LINES],
    /// Lines that were raised while masked, a bit each.
    pub(crate) pending: u32,
}

#[derive(Debug)]
pub(crate) struct Ioapic(IoapicState);

impl Ioapic {
    pub(crate) fn new() -> Self {
        Self(IoapicState {
            id: 0,
            select: 0,
            table: [MASKED; LINES],
            pending: 0,
        })
    }

    pub(crate) fn contains(address: u64) -> bool {
        (IOAPIC..IOAPIC + IOAPIC_BYTES).contains(&address)
    }

    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            SELECT => u32::from(self.0.select),
            WINDOW => self.register(),
            _ => 0,
        };
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    /// Returns the message of a line that was raised while masked and is not any more.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Option<Message> {
        let mut bytes = [0; 4];
        for (to, from) in bytes.iter_mut().zip(data) {
            *to = *from;
        }
        let value = u32::from_le_bytes(bytes);
        match offset {
            SELECT => self.0.select = bytes[0],
            WINDOW => return self.set_register(value),
            _ => {}
        }
        None
    }

    /// An edge on a line. `None` while it is masked: the edge waits.
    pub(crate) fn raise(&mut self, line: u32) -> Option<Message> {
        let entry = *self.0.table.get(line as usize)?;
        if entry & MASKED != 0 {
            self.0.pending |= 1 << line;
            return None;
        }
        Some(message(entry))
    }

    pub(crate) fn state(&self) -> &IoapicState {
        &self.0
    }

    pub(crate) fn set_state(&mut self, state: IoapicState) {
        self.0 = state;
    }

    fn register(&self) -> u32 {
        let last = u32::try_from(LINES - 1).expect("few lines");
        match self.0.select {
            REGISTER_ID | REGISTER_ARBITRATION => self.0.id,
            REGISTER_VERSION => VERSION | (last << 16),
            select => match self.entry(select) {
                Some((line, false)) => low(self.0.table[line]),
                Some((line, true)) => low(self.0.table[line] >> 32),
                None => 0,
            },
        }
    }

    fn set_register(&mut self, value: u32) -> Option<Message> {
        if self.0.select == REGISTER_ID {
            self.0.id = value & 0x0f00_0000;
            return None;
        }
        let (line, upper) = self.entry(self.0.select)?;
        let entry = &mut self.0.table[line];
        let value = u64::from(value);
        *entry = if upper {
            (*entry & 0xffff_ffff) | (value << 32)
        } else {
            (*entry & !0xffff_ffff) | (value & !READ_ONLY)
        };
        let waits = self.0.pending & (1 << line) != 0;
        if upper || !waits || *entry & MASKED != 0 {
            return None;
        }
        self.0.pending &= !(1 << line);
        Some(message(*entry))
    }

    /// The line that a register belongs to, and whether it is the upper half.
    fn entry(&self, select: u8) -> Option<(usize, bool)> {
        let at = usize::from(select.checked_sub(REGISTER_TABLE)?);
        (at / 2 < LINES).then_some((at / 2, at % 2 == 1))
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).expect("32 bits")
}

/// The message that a table entry describes (Intel SDM volume 3, 11.11: the message's address and data).
fn message(entry: u64) -> Message {
    let destination = low(entry >> 56);
    let mode = u32::from(entry & LOGICAL != 0);
    let vector = low(entry & 0xff);
    let delivery = low((entry >> 8) & 7);
    let level = u32::from(entry & LEVEL != 0);
    Message {
        address: 0xfee0_0000 | (destination << 12) | (mode << 2),
        data: vector | (delivery << 8) | (level << 15) | (level << 14),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ioapic: &mut Ioapic, register: u8, value: u32) -> Option<Message> {
        ioapic.write(SELECT, &[register]);
        ioapic.write(WINDOW, &value.to_le_bytes())
    }

    #[test]
    fn a_line_sends_the_message_that_its_entry_describes() {
        let mut ioapic = Ioapic::new();
        assert_eq!(ioapic.raise(5), None);
        set(&mut ioapic, 0x10 + 11, 2 << 24);
        let waited = set(&mut ioapic, 0x10 + 10, 0x0831);
        let message = Message {
            address: 0xfee0_2004,
            data: 0x31,
        };
        assert_eq!(waited, Some(message), "the edge had waited");
        assert_eq!(ioapic.raise(5), Some(message));
        assert_eq!(ioapic.raise(24), None);
    }

    #[test]
    fn registers_read_back_and_unknown_ones_are_silent() {
        let mut ioapic = Ioapic::new();
        let read = |ioapic: &mut Ioapic, register: u8| {
            ioapic.write(SELECT, &[register]);
            let mut bytes = [0xff; 4];
            ioapic.read(WINDOW, &mut bytes);
            u32::from_le_bytes(bytes)
        };
        assert_eq!(read(&mut ioapic, 1), 0x0017_0011);
        assert_eq!(read(&mut ioapic, 0x10), 0x1_0000);
        assert_eq!(read(&mut ioapic, 0xff), 0);
        assert_eq!(set(&mut ioapic, 0xff, 1), None);
        assert_eq!(set(&mut ioapic, 0, 0x0300_0000), None);
        assert_eq!(read(&mut ioapic, 0), 0x0300_0000);
        let mut wide = [0xaa; 8];
        ioapic.read(WINDOW, &mut wide);
        ioapic.read(0xfff, &mut []);
        ioapic.write(WINDOW, &[]);
    }
}
