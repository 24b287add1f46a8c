//! Where a copy goes.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The last part of a name that somebody gave, if it is one that a file can have: never a path, so it leads nowhere.
#[must_use]
pub fn base_name(name: &OsStr) -> Option<&OsStr> {
    let bytes = name.as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/')? + 1;
    let start = bytes[..end]
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |at| at + 1);
    match &bytes[start..end] {
        b"." | b".." => None,
        base => Some(OsStr::from_bytes(base)),
    }
}

/// Where a copy named `name` goes whose target is `target`: into an existing folder, under the base name; else to
/// the target itself.
///
/// # Errors
/// When the target is a folder and the name is none that a file can have.
pub fn landing(target: &Path, name: &OsStr) -> io::Result<PathBuf> {
    if !target.is_dir() {
        return Ok(target.to_owned());
    }
    match base_name(name) {
        Some(base) => Ok(target.join(base)),
        None => Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            "is a folder, and `name` gives no file's name",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_out_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| landing(folder.path(), OsStr::new(name));
        assert_eq!(put("../../etc/x").unwrap(), folder.path().join("x"));
        assert_eq!(put("a/b//").unwrap(), folder.path().join("b"));
        for name in ["", ".", "..", "a/..", "/", "//"] {
            let error = put(name).unwrap_err().to_string();
            assert!(error.ends_with("gives no file's name"), "{name:?}");
        }
        let new = folder.path().join("new");
        assert_eq!(landing(&new, OsStr::new("..")).unwrap(), new);
    }
}
