//! What the fuzz target and the tests run on bytes that may be an archive. Panics when unpacking them does something that
//! it must not do, and returns otherwise.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::unpack::{Trust, unpack};

/// The unit of a tar stream, in bytes; the place and the length of a header's checksum.
const RECORD_BYTES: usize = 512;
const SUM_AT: usize = 148;
const SUM_BYTES: usize = 8;

/// Unpacks an archive behind one byte, which says whether records that look like headers get true checksums first. Nothing
/// may appear beside the target, and nothing in it that belongs to another or runs as one.
pub fn copying(input: &[u8]) {
    let Some((how, bytes)) = input.split_first() else {
        return;
    };
    let mut archive = bytes.to_vec();
    if *how & 1 != 0 {
        seal(&mut archive);
    }
    let ground = std::env::temp_dir().join(crate::draft::draft_name());
    let target = ground.join("target");
    fs::create_dir_all(&target).expect("a place for the target");
    fs::write(ground.join("beside"), b"untouched").expect("a file beside the target");
    let root = File::open(&target).expect("the target").into();
    // Links that lead out, from before: nothing may go through them.
    std::os::unix::fs::symlink("..", target.join("up")).expect("a link");
    std::os::unix::fs::symlink("../beside", target.join("out")).expect("a link");
    let (Ok(_) | Err(_)) = unpack(&archive[..], root, Trust::Foreign, &mut |_, _| {});
    open_up(&target);
    look_at(&ground);
    fs::remove_dir_all(&ground).expect("what was made can be removed");
}

fn look_at(ground: &Path) {
    let mut names: Vec<_> = fs::read_dir(ground)
        .expect("the ground")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["beside", "target"], "nothing beside the target");
    let beside = ground.join("beside");
    assert_eq!(fs::read(&beside).expect("the file beside"), b"untouched");
    assert_eq!(fs::metadata(&beside).expect("the file beside").nlink(), 1);
}

/// Looks at all modes below, and lets the folders be emptied.
fn open_up(folder: &Path) {
    let metadata = fs::metadata(folder).expect("a folder that is there");
    assert_eq!(metadata.mode() & 0o7000, 0, "{}", folder.display());
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("a folder of ours");
    for entry in fs::read_dir(folder).expect("an open folder") {
        let path = entry.expect("an entry").path();
        let metadata = fs::symlink_metadata(&path).expect("an entry that is there");
        let kind = metadata.file_type();
        if kind.is_dir() {
            open_up(&path);
        } else {
            assert!(kind.is_file() || kind.is_symlink(), "{}", path.display());
            assert!(kind.is_symlink() || metadata.mode() & 0o7000 == 0);
            let name = path.file_name().expect("a name").to_string_lossy();
            assert!(
                !name.starts_with(&format!(".vmrepl-{}-", std::process::id())),
                "a draft is left"
            );
        }
    }
}

/// Makes the checksums true of all records that have a kind and a checksum.
fn seal(archive: &mut [u8]) {
    for record in archive.chunks_exact_mut(RECORD_BYTES) {
        if record[SUM_AT] == 0 {
            continue;
        }
        record[SUM_AT..SUM_AT + SUM_BYTES].fill(b' ');
        let sum: u32 = record.iter().map(|byte| u32::from(*byte)).sum();
        record[SUM_AT..SUM_AT + SUM_BYTES].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}
