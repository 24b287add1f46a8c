//! Which engine runs the machines here, and why.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vmrepl_machine::Engine;

use crate::error::SessionError;
use crate::places::Places;

/// The user's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// The fastest that works.
    #[default]
    Auto,
    /// Hardware virtualisation.
    Kvm,
    /// Emulation.
    Qemu,
}

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

/// Finds the engine for a wish.
///
/// # Errors
/// When the wished one cannot be used.
pub fn find_engine(places: &Places, choice: EngineChoice) -> Result<Engine, SessionError> {
    match choice {
        EngineChoice::Kvm => Ok(find_kvm(places)),
        EngineChoice::Auto | EngineChoice::Qemu => find_qemu(places),
    }
}

fn find_kvm(places: &Places) -> Engine {
    let (program, arguments) = places.worker.clone();
    Engine::kvm(program, arguments)
}

fn find_qemu(places: &Places) -> Result<Engine, SessionError> {
    let path = Engine::locate_qemu(&places.search_path).map_err(SessionError::Engine)?;
    let note = places.store.join("qemu.json");
    let facts = identity(&path);
    if let (Some(facts), Some(known)) = (&facts, remembered(&note))
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
        // Only a note to save time: a failure costs 10 ms at the next start.
        if let Ok(text) = serde_json::to_vec(&known) {
            let beside = note.with_extension(format!("json.{}", std::process::id()));
            drop(fs::write(&beside, text).and_then(|()| fs::rename(&beside, &note)));
        }
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

fn remembered(note: &Path) -> Option<Known> {
    serde_json::from_slice(&fs::read(note).ok()?).ok()
}
