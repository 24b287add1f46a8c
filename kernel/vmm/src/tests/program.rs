//! Programs of a guest: a few instructions of 32-bit code (Intel SDM volume 2), in flat segments without paging.

/// Where programs lie and begin.
pub(super) const ENTRY: u32 = 0x1_0000;

/// Machine code under construction.
#[derive(Debug, Clone, Default)]
pub(super) struct Program(Vec<u8>);

impl Program {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn and(mut self, parts: &[&[u8]]) -> Self {
        self.0.extend(parts.concat());
        self
    }

    /// `mov dword [address], value`
    pub(super) fn store(self, address: u32, value: u32) -> Self {
        self.and(&[&[0xc7, 0x05], &address.to_le_bytes(), &value.to_le_bytes()])
    }

    /// `mov eax, [from]; mov [to], eax`
    pub(super) fn copy(self, from: u32, to: u32) -> Self {
        self.and(&[&[0xa1], &from.to_le_bytes(), &[0xa3], &to.to_le_bytes()])
    }

    /// `inc dword [address]`
    pub(super) fn count(self, address: u32) -> Self {
        self.and(&[&[0xff, 0x05], &address.to_le_bytes()])
    }

    /// `mov dx, port; mov al, byte; out dx, al`
    pub(super) fn out(self, port: u16, byte: u8) -> Self {
        self.and(&[&[0x66, 0xba], &port.to_le_bytes(), &[0xb0, byte, 0xee]])
    }

    /// `mov dx, port; in al, dx; mov [to], al`
    pub(super) fn in_to(self, port: u16, to: u32) -> Self {
        self.and(&[
            &[0x66, 0xba],
            &port.to_le_bytes(),
            &[0xec, 0xa2],
            &to.to_le_bytes(),
        ])
    }

    /// `mov ecx, index; mov eax, low; mov edx, high; wrmsr`
    pub(super) fn write_msr(self, index: u32, value: u64) -> Self {
        let bytes = value.to_le_bytes();
        self.and(&[
            &[0xb9],
            &index.to_le_bytes(),
            &[0xb8],
            &bytes[..4],
            &[0xba],
            &bytes[4..],
            &[0x0f, 0x30],
        ])
    }

    /// `ud2`, of which nobody takes care.
    pub(super) fn fault(self) -> Self {
        self.and(&[&[0x0f, 0x0b]])
    }

    /// Back to the first of these bytes.
    pub(super) fn again_from(self, start: usize) -> Self {
        let after = self.0.len() + 5;
        let back = i32::try_from(start).unwrap() - i32::try_from(after).unwrap();
        self.and(&[&[0xe9], &back.to_le_bytes()])
    }

    /// Counts at an address for ever.
    pub(super) fn count_for_ever(self, address: u32) -> Self {
        let start = self.0.len();
        self.count(address).again_from(start)
    }

    /// Powers the machine off.
    pub(super) fn off(self) -> Self {
        let here = self.out(0x600, 0x34);
        let start = here.0.len();
        here.again_from(start)
    }
}
