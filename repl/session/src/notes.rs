//! Small facts about this host, kept in the store's folder so that they need not be found out again. A note
//! that is lost or damaged costs time, nothing else.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a note says; nothing if it is not there or cannot be understood.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes a note whole or not at all. A failure is none: the next one who asks finds out anew.
pub(crate) fn write(path: &Path, note: &impl Serialize) {
    let Ok(text) = serde_json::to_vec(note) else {
        return;
    };
    let beside = path.with_extension(format!("json.{}", std::process::id()));
    if fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, path))
        .is_err()
    {
        drop(fs::remove_file(&beside));
    }
}
