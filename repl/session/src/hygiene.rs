//! What makes a copy of a machine differ from its siblings: entropy, the wall clock, names.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use vmrepl_wire::control::{ControlRequest, Entropy, RngPolicy};

/// The message that every resume begins with.
pub(crate) fn resumed(generation: u64, rng: RngPolicy) -> io::Result<ControlRequest> {
    let mut entropy = [0; 64];
    fill_random(&mut entropy)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Ok(ControlRequest::Resumed {
        generation,
        entropy: Entropy::new(entropy),
        realtime_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        hostname: Some(format!("vmrepl-{}", &random_name()?[..8])),
        rng,
    })
}

/// Sixteen random hexadecimal digits.
pub(crate) fn random_name() -> io::Result<String> {
    let mut bytes = [0; 8];
    fill_random(&mut bytes)?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}
