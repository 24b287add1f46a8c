//! What the fuzz targets and the tests run on bytes that anyone may have made. Each function panics when the wire
//! does something that it must not do, and returns otherwise.

mod channel;
mod languages;
mod lines;
#[cfg(test)]
mod tests;

pub use channel::channel;
pub use languages::languages;
pub use lines::lines;

/// Takes an input apart from its front; at its end everything is zero.
#[derive(Debug)]
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
