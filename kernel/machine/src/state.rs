//! The engine's saved state with the few facts that the machine itself must remember.
//!
//! Layout, little-endian: version u32, epoch u32, then the engine's bytes. Read back as untrusted data;
//! the store has checked its checksum.

use crate::error::MachineError;

/// Version of this layout.
pub const STATE_VERSION: u32 = 1;

const HEADER_BYTES: usize = 8;

pub(crate) fn encode(epoch: u32, engine: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + engine.len());
    bytes.extend_from_slice(&STATE_VERSION.to_le_bytes());
    bytes.extend_from_slice(&epoch.to_le_bytes());
    bytes.extend_from_slice(engine);
    bytes
}

/// The epoch that the guest knows, and the engine's part.
pub(crate) fn decode(bytes: &[u8]) -> Result<(u32, &[u8]), MachineError> {
    let short = || MachineError::State { bytes: bytes.len() };
    let (version, rest) = bytes.split_first_chunk::<4>().ok_or_else(short)?;
    let (epoch, engine) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let found = u32::from_le_bytes(*version);
    if found != STATE_VERSION {
        return Err(MachineError::StateVersion {
            found,
            known: STATE_VERSION,
        });
    }
    Ok((u32::from_le_bytes(*epoch), engine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_survives_the_round_trip_and_damage_is_told() {
        let bytes = encode(7, b"devices");
        let (epoch, engine) = decode(&bytes).unwrap();
        assert_eq!((epoch, engine), (7, b"devices".as_slice()));
        assert!(matches!(
            decode(&bytes[..5]),
            Err(MachineError::State { bytes: 5 })
        ));
        let newer = encode(7, b"x")
            .iter()
            .map(|b| b.wrapping_add(1))
            .collect::<Vec<_>>();
        assert!(matches!(
            decode(&newer),
            Err(MachineError::StateVersion { .. })
        ));
    }
}
