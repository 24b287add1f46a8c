//! The machine's state as a section of a checkpoint: packed, for the devices of an emulated machine are mostly zeros.

use vmrepl_snapshots::{LayerDraft, Section, Snapshot, StoreError};

use crate::error::SessionError;
use crate::limits::STATE_BYTES_MAX;
use crate::template::MACHINE;

/// The section: the version of the state's layout and its length, both u32 little-endian, then one lz4 block. A template has
/// the state as it is.
const PACKED: &str = "machine-lz4";
/// Version of that.
const PACKED_VERSION: u32 = 1;
const HEAD_BYTES: usize = 8;

/// Adds the state to a layer.
pub(crate) fn add(draft: &mut LayerDraft, state: &[u8]) -> Result<(), StoreError> {
    let Ok(length) = u32::try_from(state.len()) else {
        return draft.section(MACHINE, vmrepl_machine::STATE_VERSION, state);
    };
    let mut packed = Vec::with_capacity(state.len() / 2);
    packed.extend_from_slice(&vmrepl_machine::STATE_VERSION.to_le_bytes());
    packed.extend_from_slice(&length.to_le_bytes());
    packed.extend_from_slice(&lz4_flex::block::compress(state));
    draft.section(PACKED, PACKED_VERSION, &packed)
}

/// Whether a snapshot is a cell's checkpoint: templates have the state as it is.
pub(crate) fn is_of_a_cell(snapshot: &Snapshot) -> bool {
    snapshot.header().parent().is_some() || snapshot.header().section(PACKED).is_some()
}

/// The state that a snapshot has, packed or not.
pub(crate) fn read(snapshot: &Snapshot) -> Result<Vec<u8>, SessionError> {
    if snapshot.header().section(PACKED).is_none() {
        let plain = snapshot
            .read_section(MACHINE)
            .map_err(SessionError::Store)?;
        return Ok(plain.bytes);
    }
    let section = snapshot.read_section(PACKED).map_err(SessionError::Store)?;
    unpack(&section).ok_or_else(|| SessionError::Unreadable {
        snapshot: snapshot.id(),
        section: PACKED,
    })
}

fn unpack(section: &Section) -> Option<Vec<u8>> {
    let (head, block) = section.bytes.split_at_checked(HEAD_BYTES)?;
    let word = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let length = usize::try_from(word(4)?).ok()?;
    if section.version != PACKED_VERSION
        || word(0)? != vmrepl_machine::STATE_VERSION
        || length > STATE_BYTES_MAX
    {
        return None;
    }
    let state = lz4_flex::block::decompress(block, length).ok()?;
    (state.len() == length).then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(bytes: Vec<u8>) -> Section {
        Section {
            version: PACKED_VERSION,
            bytes,
        }
    }

    #[test]
    fn what_lies_about_its_length_is_refused() {
        let state = vec![7_u8; 5000];
        let block = lz4_flex::block::compress(&state);
        let packed = |length: u32| {
            let version = vmrepl_machine::STATE_VERSION.to_le_bytes();
            [&version[..], &length.to_le_bytes(), &block].concat()
        };
        assert_eq!(unpack(&section(packed(5000))), Some(state));
        assert_eq!(unpack(&section(packed(4999))), None);
        assert_eq!(unpack(&section(packed(5001))), None);
        assert_eq!(unpack(&section(packed(u32::MAX))), None);
        assert_eq!(unpack(&section(packed(5000)[..7].to_vec())), None);
        let mut other = packed(5000);
        other[0] ^= 0xff;
        assert_eq!(unpack(&section(other)), None);
    }
}
