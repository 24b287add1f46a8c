//! QEMU on this host, found without starting it where that was done before.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vmrepl_machine::Engine;

use crate::error::SessionError;
use crate::notes;
use crate::places::Places;

/// A QEMU whose version is known, so that a run need not start it to ask (10 ms).
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    path: std::path::PathBuf,
    device: u64,
    inode: u64,
    modified_ns: i128,
    bytes: u64,
    version: (u32, u32),
}

/// Finds QEMU.
///
/// # Errors
/// When there is none, or too old a one.
pub(crate) fn find_qemu(places: &Places) -> Result<Engine, SessionError> {
    let path = Engine::locate_qemu(&places.search_path).map_err(SessionError::Engine)?;
    let note = places.store.join("qemu.json");
    let facts = identity(&path);
    if let (Some(facts), Some(known)) = (&facts, notes::read::<Known>(&note))
        && (Known {
            version: known.version,
            path: path.clone(),
            ..facts.with_version((0, 0))
        }) == known
    {
        return Engine::known_qemu(path, known.version).map_err(SessionError::Engine);
    }
    let engine = Engine::qemu(&places.search_path).map_err(SessionError::Engine)?;
    if let Some(facts) = facts {
        let known = Known {
            path,
            ..facts.with_version(engine.version())
        };
        notes::write(&note, &known);
    }
    Ok(engine)
}

struct Identity {
    device: u64,
    inode: u64,
    modified_ns: i128,
    bytes: u64,
}

impl Identity {
    fn with_version(&self, version: (u32, u32)) -> Known {
        Known {
            path: std::path::PathBuf::new(),
            device: self.device,
            inode: self.inode,
            modified_ns: self.modified_ns,
            bytes: self.bytes,
            version,
        }
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let facts = path.metadata().ok()?;
    Some(Identity {
        device: facts.dev(),
        inode: facts.ino(),
        modified_ns: i128::from(facts.mtime()) * 1_000_000_000 + i128::from(facts.mtime_nsec()),
        bytes: facts.len(),
    })
}
