//! Just enough of ELF to see what a Linux, a module or a static program is made of. The bytes are foreign: every offset is checked.

use crate::elf::spec::{
    CLASS_64, DATA_LITTLE, HEADER_BYTES, MACHINE_X86_64, MAGIC, NOTE_XEN_PHYS32_ENTRY,
    PROGRAM_HEADER_BYTES, PROGRAM_NOTE, SECTION_HEADER_BYTES,
};

/// Numbers of the ELF-64 object file format, and of the note that Xen's PVH boot protocol reads.
/// <https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html>, <https://xenbits.xen.org/docs/unstable/misc/pvh.html>
mod spec {
    pub(super) const MAGIC: [u8; 4] = *b"\x7fELF";
    pub(super) const CLASS_64: u8 = 2;
    pub(super) const DATA_LITTLE: u8 = 1;
    pub(super) const MACHINE_X86_64: u16 = 62;
    pub(super) const HEADER_BYTES: usize = 64;
    pub(super) const PROGRAM_HEADER_BYTES: usize = 56;
    pub(super) const SECTION_HEADER_BYTES: usize = 64;
    #[cfg(test)]
    pub(super) const PROGRAM_INTERPRETER: u32 = 3;
    pub(super) const PROGRAM_NOTE: u32 = 4;
    pub(super) const NOTE_XEN_PHYS32_ENTRY: u32 = 18;
}

/// What is wrong with an ELF file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElfError {
    /// Another format, class, byte order or processor.
    #[error("not a 64-bit x86 ELF file")]
    NotElf,
    /// A header points outside of the file.
    #[error("the {what} lies outside of the file")]
    Truncated {
        /// Which part.
        what: &'static str,
    },
}

/// An ELF file in memory whose header has been checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
}

impl<'a> Elf<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, ElfError> {
        let elf = Self { bytes };
        if bytes.len() < HEADER_BYTES
            || bytes[..4] != MAGIC
            || bytes[4] != CLASS_64
            || bytes[5] != DATA_LITTLE
            || elf.half(18, "header")? != MACHINE_X86_64
        {
            return Err(ElfError::NotElf);
        }
        Ok(elf)
    }

    /// Returns the bytes of the first section of that name.
    pub(crate) fn section(&self, name: &str) -> Result<Option<&'a [u8]>, ElfError> {
        let table = self.offset(40, "section table")?;
        let count = usize::from(self.half(60, "header")?);
        let names = usize::from(self.half(62, "header")?);
        let header = |index: usize| {
            index
                .checked_mul(SECTION_HEADER_BYTES)
                .and_then(|at| at.checked_add(table))
                .ok_or(ElfError::Truncated {
                    what: "section table",
                })
        };
        if count == 0 {
            return Ok(None);
        }
        let strings = self.range(header(names)? + 24, "section names")?;
        for index in 0..count {
            let at = header(index)?;
            let start = self.word(at, "section table")? as usize;
            let found = strings
                .get(start..)
                .and_then(|rest| rest.split(|byte| *byte == 0).next())
                .ok_or(ElfError::Truncated {
                    what: "section names",
                })?;
            if found == name.as_bytes() {
                return self.range(at + 24, "section").map(Some);
            }
        }
        Ok(None)
    }

    /// Whether the program asks for a dynamic loader; a static one does not.
    #[cfg(test)]
    pub(crate) fn has_interpreter(&self) -> Result<bool, ElfError> {
        Ok(self
            .programs()?
            .iter()
            .any(|(kind, _)| *kind == spec::PROGRAM_INTERPRETER))
    }

    /// Whether a monitor can enter this Linux by the PVH protocol.
    pub(crate) fn has_pvh_entry(&self) -> Result<bool, ElfError> {
        let programs = self.programs()?;
        let mut notes = programs.iter().filter(|(kind, _)| *kind == PROGRAM_NOTE);
        Ok(notes.any(|(_, bytes)| has_note(bytes, b"Xen\0", NOTE_XEN_PHYS32_ENTRY)))
    }

    fn programs(&self) -> Result<Vec<(u32, &'a [u8])>, ElfError> {
        let table = self.offset(32, "program table")?;
        let mut programs = Vec::new();
        for index in 0..usize::from(self.half(56, "header")?) {
            let at =
                table
                    .checked_add(index * PROGRAM_HEADER_BYTES)
                    .ok_or(ElfError::Truncated {
                        what: "program table",
                    })?;
            let kind = self.word(at, "program table")?;
            let start = self.offset(at + 8, "program table")?;
            let size = self.offset(at + 32, "program table")?;
            programs.push((kind, self.slice(start, size, "segment")?));
        }
        Ok(programs)
    }

    /// Reads an offset at `at` and a size after it, and returns what they span.
    fn range(&self, at: usize, what: &'static str) -> Result<&'a [u8], ElfError> {
        self.slice(self.offset(at, what)?, self.offset(at + 8, what)?, what)
    }

    fn slice(&self, start: usize, size: usize, what: &'static str) -> Result<&'a [u8], ElfError> {
        start
            .checked_add(size)
            .and_then(|end| self.bytes.get(start..end))
            .ok_or(ElfError::Truncated { what })
    }

    fn array<const N: usize>(&self, at: usize, what: &'static str) -> Result<[u8; N], ElfError> {
        self.slice(at, N, what)?
            .try_into()
            .map_err(|_| ElfError::Truncated { what })
    }

    fn half(&self, at: usize, what: &'static str) -> Result<u16, ElfError> {
        self.array(at, what).map(u16::from_le_bytes)
    }

    fn word(&self, at: usize, what: &'static str) -> Result<u32, ElfError> {
        self.array(at, what).map(u32::from_le_bytes)
    }

    fn offset(&self, at: usize, what: &'static str) -> Result<usize, ElfError> {
        let value = u64::from_le_bytes(self.array(at, what)?);
        // Above this no file is that long, and sums of two offsets cannot overflow.
        usize::try_from(value)
            .ok()
            .filter(|value| *value < 1 << 48)
            .ok_or(ElfError::Truncated { what })
    }
}

/// Walks a note segment: name size, descriptor size, kind, then both padded to four bytes.
fn has_note(mut notes: &[u8], name: &[u8], kind: u32) -> bool {
    let word =
        |bytes: &[u8], at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    while let (Some(name_size), Some(size), Some(found)) =
        (word(notes, 0), word(notes, 4), word(notes, 8))
    {
        let name_size = name_size as usize;
        if found == kind && notes.get(12..12 + name_size) == Some(name) {
            return true;
        }
        let next = 12 + name_size.next_multiple_of(4) + (size as usize).next_multiple_of(4);
        notes = notes.get(next..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Makes a small ELF file with one note segment and one section.
    pub(crate) fn small(note_kind: u32, section: &str, content: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [4, 4, note_kind] {
            note.extend(u32::to_le_bytes(word));
        }
        note.extend(*b"Xen\0\0\x10\0\0");
        let names = [b"\0", section.as_bytes(), b"\0"].concat();
        let note_at = HEADER_BYTES + PROGRAM_HEADER_BYTES;
        let names_at = note_at + note.len();
        let content_at = names_at + names.len();
        let sections_at = content_at + content.len();
        let mut file = vec![0; HEADER_BYTES + PROGRAM_HEADER_BYTES];
        file[..4].copy_from_slice(&MAGIC);
        file[4] = CLASS_64;
        file[5] = DATA_LITTLE;
        file[18] = 62;
        file[32..40].copy_from_slice(&(HEADER_BYTES as u64).to_le_bytes());
        file[40..48].copy_from_slice(&(sections_at as u64).to_le_bytes());
        file[56] = 1;
        file[60] = 2;
        file[64] = 4;
        file[72..80].copy_from_slice(&(note_at as u64).to_le_bytes());
        file[96..104].copy_from_slice(&(note.len() as u64).to_le_bytes());
        file.extend(note);
        file.extend(&names);
        file.extend(content);
        for (name, at, size) in [
            (0u32, names_at, names.len()),
            (1, content_at, content.len()),
        ] {
            let mut header = [0; SECTION_HEADER_BYTES];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            file.extend(header);
        }
        file
    }

    #[test]
    fn sections_and_notes_are_found() {
        let file = small(18, ".modinfo", b"depends=virtio\0");
        let elf = Elf::parse(&file).unwrap();
        assert_eq!(
            elf.section(".modinfo").unwrap(),
            Some(&b"depends=virtio\0"[..])
        );
        assert_eq!(elf.section(".text").unwrap(), None);
        assert!(elf.has_pvh_entry().unwrap() && !elf.has_interpreter().unwrap());
        let other = small(17, "x", b"");
        assert!(!Elf::parse(&other).unwrap().has_pvh_entry().unwrap());
    }

    #[test]
    fn a_damaged_file_is_an_error_and_never_a_panic() {
        let file = small(18, ".modinfo", b"depends=\0");
        for end in 0..file.len() {
            if let Ok(elf) = Elf::parse(&file[..end]) {
                drop((elf.section(".modinfo"), elf.has_pvh_entry()));
            }
        }
        for at in 0..file.len() {
            let mut file = file.clone();
            file[at] = 0xff;
            if let Ok(elf) = Elf::parse(&file) {
                drop((elf.section(".modinfo"), elf.has_pvh_entry()));
            }
        }
        assert_eq!(Elf::parse(b"MZ").unwrap_err(), ElfError::NotElf);
    }
}
