//! Single files, by operations that every guest knows: also one whose template was made by an earlier release.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use vmrepl_copying::DraftFile;
use vmrepl_wire::files::{FilesOp, Shell, Tag};
use vmrepl_wire::limits::FILES_CHUNK_BYTES;

use super::port::{Port, expect_ok};
use crate::error::SessionError;

pub(super) fn put(port: &Port<'_>, source: &Path, target: &str) -> Result<(), SessionError> {
    let failed = |error| SessionError::File {
        verb: "send",
        path: source.display().to_string(),
        source: error,
    };
    let mut file = File::open(source).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        )));
    }
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    let mut frames = port.ask(FilesOp::PutFile {
        path: target.to_owned(),
        name: Some(name.into_owned()),
        mode: Some(facts.permissions().mode() & 0o777),
        size: facts.len(),
    })?;
    let mut chunk = vec![0; FILES_CHUNK_BYTES];
    let mut left = facts.len();
    while left > 0 {
        let want = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
        let count = file.read(&mut chunk[..want]).map_err(failed)?;
        if count == 0 {
            frames.send(Tag::End, &[]).map_err(failed)?;
            break;
        }
        frames.send(Tag::File, &chunk[..count]).map_err(failed)?;
        left -= count as u64;
    }
    expect_ok(frames.reply().map_err(failed)?, "take", target)?;
    Ok(())
}

pub(super) fn make_folder(port: &Port<'_>, target: &str) -> Result<(), SessionError> {
    let folder = Path::new(target)
        .parent()
        .map(|folder| folder.display().to_string())
        .unwrap_or_default();
    if folder.is_empty() || folder == "/" {
        return Ok(());
    }
    let failed = |error| SessionError::File {
        verb: "make the guest's folder",
        path: folder.clone(),
        source: error,
    };
    let quoted = folder.replace('\'', "'\\''");
    let mut frames = port.ask(FilesOp::Run {
        cmd: format!("cd /home/user && mkdir -p -- '{quoted}'"),
        shell: Shell::Raw,
        timeout: Some(10.0),
        env: BTreeMap::new(),
    })?;
    // What it wrote comes before its answer.
    let mut code = None;
    frames
        .until(|tag, payload| {
            if tag == Tag::Control {
                code = serde_json::from_slice::<vmrepl_wire::files::FilesReply>(payload)?.exit_code;
            }
            Ok(tag == Tag::Control)
        })
        .map_err(failed)?;
    if code == Some(0) {
        return Ok(());
    }
    Err(failed(io::Error::other(format!(
        "mkdir ended with {code:?}"
    ))))
}

pub(super) fn get(port: &Port<'_>, source: &str, target: &Path) -> Result<(), SessionError> {
    let failed = |error| SessionError::File {
        verb: "write",
        path: target.display().to_string(),
        source: error,
    };
    let mut frames = port.ask(FilesOp::GetFile {
        path: source.to_owned(),
    })?;
    let header = expect_ok(frames.reply().map_err(failed)?, "give", source)?;
    let mut draft = DraftFile::begin(target).map_err(failed)?;
    frames
        .until(|tag, payload| match tag {
            Tag::File => draft.write_all(payload).map(|()| false),
            Tag::End => Ok(true),
            _ => Err(io::Error::other(format!("a {tag:?} frame inside a file"))),
        })
        .map_err(failed)?;
    let mode = header.mode.unwrap_or(0o644) & 0o777;
    draft.publish(mode, None).map_err(failed)
}
