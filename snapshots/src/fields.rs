//! Reading and writing little-endian fields; a read past the end is `None`, never a panic.

/// The rest of a byte string that is being taken apart.
#[derive(Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }
}

/// Appends `text` and fills up to `N` bytes with NUL. The caller has checked that it fits.
pub(crate) fn put_text<const N: usize>(out: &mut Vec<u8>, text: &str) {
    let mut field = [0; N];
    field[..text.len()].copy_from_slice(text.as_bytes());
    out.extend_from_slice(&field);
}

/// Reads back what [`put_text`] wrote: printable ASCII, then NULs to the end of the field.
pub(crate) fn text(field: &[u8]) -> Option<String> {
    let length = field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len());
    let (text, padding) = field.split_at(length);
    let printable = text.iter().all(|byte| (b' '..=b'~').contains(byte));
    let padded = padding.iter().all(|&byte| byte == 0);
    (printable && padded).then(|| text.iter().map(|&byte| char::from(byte)).collect())
}

/// Whether `value` fits a text field of `limit` bytes and comes back from it unchanged.
pub(crate) fn is_text(value: &str, limit: usize) -> bool {
    value.len() <= limit && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}
