//! The compressed Linux inside of a distribution's boot image (`vmlinuz`): where it is and how it is packed.

use std::io::Read;

use crate::bzimage::spec::{
    BOOT_MAGIC, BOOT_MAGIC_AT, LZ4_LEGACY, PAYLOAD_LENGTH_AT, PAYLOAD_OFFSET_AT, SECTOR_BYTES,
    SETUP_SECTORS_AT, VERSION_AT, VERSION_WITH_PAYLOAD,
};
use crate::limits::VMLINUX_BYTES;

/// The setup header of the Linux/x86 boot protocol. <https://docs.kernel.org/arch/x86/boot.html#details-of-header-fields>
mod spec {
    pub(super) const SECTOR_BYTES: usize = 512;
    pub(super) const SETUP_SECTORS_AT: usize = 0x1f1;
    pub(super) const BOOT_MAGIC_AT: usize = 0x202;
    pub(super) const BOOT_MAGIC: &[u8; 4] = b"HdrS";
    pub(super) const VERSION_AT: usize = 0x206;
    /// 2.08 was the first protocol with the payload's place in the header.
    pub(super) const VERSION_WITH_PAYLOAD: u16 = 0x0208;
    pub(super) const PAYLOAD_OFFSET_AT: usize = 0x248;
    pub(super) const PAYLOAD_LENGTH_AT: usize = 0x24c;
    /// The frame of `lz4 -l`: no checksums, no end mark.
    pub(super) const LZ4_LEGACY: [u8; 4] = 0x184C_2102_u32.to_le_bytes();
}

/// What is wrong with a boot image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BzImageError {
    /// There is no setup header, or it is too old.
    #[error("it is no Linux boot image of protocol 2.08 or later")]
    NotBzImage,
    /// The payload lies outside of the file.
    #[error("the compressed payload lies outside of the file")]
    Truncated,
    /// The compression is none that Linux uses.
    #[error("the payload starts with {start:02x?}: an unknown compression")]
    Compression {
        /// The first bytes of the payload.
        start: Vec<u8>,
    },
    /// The payload does not decompress.
    #[error("decompressing the payload")]
    Decompress(#[source] std::io::Error),
    /// It decompressed to something else than its own size field says.
    #[error("the payload decompressed to {found} bytes, its size field says {expected}")]
    Size {
        /// What came out.
        found: u64,
        /// What the field says.
        expected: u32,
    },
    /// It is no ELF file that can be entered by PVH.
    #[error("the decompressed linux has no PVH entry: it must be built with CONFIG_PVH=y")]
    NoPvhEntry,
}

/// How a payload is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Lz4,
    /// A program of the host unpacks it.
    Host {
        program: &'static str,
        debian_package: &'static str,
    },
}

/// The payload of a boot image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Payload<'a> {
    pub(crate) compression: Compression,
    /// What to decompress, without the size field that Linux appends.
    pub(crate) bytes: &'a [u8],
    /// How large it gets, where Linux says so.
    pub(crate) expected_bytes: Option<u32>,
}

/// Finds the payload of a boot image.
pub(crate) fn payload(image: &[u8]) -> Result<Payload<'_>, BzImageError> {
    if image.get(BOOT_MAGIC_AT..BOOT_MAGIC_AT + 4) != Some(BOOT_MAGIC) {
        return Err(BzImageError::NotBzImage);
    }
    let version = image
        .get(VERSION_AT..VERSION_AT + 2)
        .map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    if version.is_none_or(|version| version < VERSION_WITH_PAYLOAD) {
        return Err(BzImageError::NotBzImage);
    }
    let setup_sectors = match image[SETUP_SECTORS_AT] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup_sectors + 1) * SECTOR_BYTES + word(image, PAYLOAD_OFFSET_AT)? as usize;
    let length = word(image, PAYLOAD_LENGTH_AT)? as usize;
    let bytes = image
        .get(start..start + length)
        .ok_or(BzImageError::Truncated)?;
    let compression = detect(bytes)?;
    if matches!(
        compression,
        Compression::None
            | Compression::Host {
                program: "gzip",
                ..
            }
    ) {
        // Nothing is appended to these: gzip ends with its own size field, a plain payload needs none.
        return Ok(Payload {
            compression,
            bytes,
            expected_bytes: None,
        });
    }
    let (bytes, _) = bytes
        .split_at_checked(length - 4)
        .ok_or(BzImageError::Truncated)?;
    Ok(Payload {
        compression,
        bytes,
        expected_bytes: Some(word(image, start + length - 4)?),
    })
}

/// Unpacks a payload that needs no program of the host.
pub(crate) fn unpack_lz4(bytes: &[u8]) -> Result<Vec<u8>, BzImageError> {
    let mut linux = Vec::new();
    lz4_flex::frame::FrameDecoder::new(bytes)
        .take(VMLINUX_BYTES + 1)
        .read_to_end(&mut linux)
        .map_err(BzImageError::Decompress)?;
    Ok(linux)
}

/// Checks what came out of a payload.
pub(crate) fn check(linux: &[u8], expected_bytes: Option<u32>) -> Result<(), BzImageError> {
    let found = linux.len() as u64;
    if let Some(expected) = expected_bytes.filter(|expected| u64::from(*expected) != found) {
        return Err(BzImageError::Size { found, expected });
    }
    let has_entry = crate::elf::Elf::parse(linux).and_then(|elf| elf.has_pvh_entry());
    if has_entry == Ok(true) {
        Ok(())
    } else {
        Err(BzImageError::NoPvhEntry)
    }
}

fn word(image: &[u8], at: usize) -> Result<u32, BzImageError> {
    let bytes = image.get(at..at + 4).ok_or(BzImageError::Truncated)?;
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn detect(bytes: &[u8]) -> Result<Compression, BzImageError> {
    let host = |program, debian_package| Compression::Host {
        program,
        debian_package,
    };
    let known: [(&[u8], Compression); 7] = [
        (b"\x7fELF", Compression::None),
        (&LZ4_LEGACY, Compression::Lz4),
        (b"\xfd7zXZ\0", host("xz", "xz-utils")),
        (b"\x5d\0\0", host("xz", "xz-utils")),
        (b"\x28\xb5\x2f\xfd", host("zstd", "zstd")),
        (b"\x1f\x8b", host("gzip", "gzip")),
        (b"BZh", host("bzip2", "bzip2")),
    ];
    known
        .iter()
        .find(|(magic, _)| bytes.starts_with(magic))
        .map(|(_, compression)| *compression)
        .ok_or_else(|| BzImageError::Compression {
            start: bytes[..bytes.len().min(6)].to_vec(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::small;

    /// Packs blocks the way `lz4 -l` does: each with its compressed length before it.
    fn lz4_legacy(content: &[u8]) -> Vec<u8> {
        let mut frame = LZ4_LEGACY.to_vec();
        for block in content.chunks(8 << 20) {
            let packed = lz4_flex::block::compress(block);
            frame.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
            frame.extend(packed);
        }
        frame
    }

    fn image(payload: &[u8], sectors: u8) -> Vec<u8> {
        let mut image = vec![0; (usize::from(sectors) + 1) * SECTOR_BYTES + 16];
        image[SETUP_SECTORS_AT] = sectors;
        image[BOOT_MAGIC_AT..BOOT_MAGIC_AT + 4].copy_from_slice(BOOT_MAGIC);
        image[VERSION_AT..VERSION_AT + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET_AT] = 16;
        let length = u32::try_from(payload.len()).unwrap();
        image[PAYLOAD_LENGTH_AT..PAYLOAD_LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
        image.extend(payload);
        image.extend(b"what comes after");
        image
    }

    #[test]
    fn an_lz4_payload_comes_out_as_it_went_in() {
        let mut linux = small(18, ".text", b"code");
        linux.resize(9 << 20, 0x5a);
        let size = u32::try_from(linux.len()).unwrap();
        let image = image(
            &[lz4_legacy(&linux), size.to_le_bytes().to_vec()].concat(),
            39,
        );
        let payload = payload(&image).unwrap();
        assert_eq!(
            (payload.compression, payload.expected_bytes),
            (Compression::Lz4, Some(size))
        );
        let unpacked = unpack_lz4(payload.bytes).unwrap();
        assert!(unpacked == linux);
        check(&unpacked, payload.expected_bytes).unwrap();
        assert!(matches!(
            check(&unpacked, Some(1)),
            Err(BzImageError::Size { .. })
        ));
        assert!(matches!(
            check(&small(17, "", b""), None),
            Err(BzImageError::NoPvhEntry)
        ));
    }

    #[test]
    fn other_compressions_name_their_program() {
        let program = |start: &[u8]| match payload(&image(&[start, b"12345678"].concat(), 4))
            .unwrap()
            .compression
        {
            Compression::Host { program, .. } => program,
            other => panic!("{other:?}"),
        };
        assert_eq!(program(b"\xfd7zXZ\0"), "xz");
        assert_eq!(program(b"\x28\xb5\x2f\xfd"), "zstd");
        assert_eq!(program(b"\x1f\x8b"), "gzip");
        let error = payload(&image(b"whatisthis", 4)).unwrap_err();
        assert!(error.to_string().contains("unknown compression"), "{error}");
    }

    #[test]
    fn damaged_images_are_refused() {
        let good = image(&[lz4_legacy(b"x"), vec![0; 4]].concat(), 4);
        for end in 0..good.len() - 16 {
            assert!(payload(&good[..end]).is_err(), "{end}");
        }
        unpack_lz4(&LZ4_LEGACY[..3]).unwrap_err();
        let mut old = good;
        old[VERSION_AT] = 7;
        old[VERSION_AT + 1] = 2;
        assert!(matches!(payload(&old), Err(BzImageError::NotBzImage)));
    }
}
