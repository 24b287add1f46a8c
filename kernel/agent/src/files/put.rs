//! Taking a file: written beside its target under another name, then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use vmrepl_wire::files::{FilesReply, Tag};

use super::connection::Connection;
use super::{absolute, failure};
use crate::exec::Hangup;

const MODE: u32 = 0o644;

/// What the request says.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) path: String,
    pub(super) name: Option<String>,
    pub(super) mode: Option<u32>,
    pub(super) size_bytes: u64,
}

pub(super) fn put(connection: &mut Connection, order: &Order) -> Result<(), Hangup> {
    // The bytes come whether the file can be made or not: they are taken either way, so that the
    // sender is not left in the middle of them.
    let mut draft = Draft::begin(order);
    let (mut rest, mut has_ended) = (order.size_bytes, false);
    while rest > 0 {
        match connection.frame()? {
            Some((Tag::File, bytes)) => {
                let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let Some(left) = rest.checked_sub(count) else {
                    draft = draft.and(Err(format!("more than {} bytes came", order.size_bytes)));
                    break;
                };
                rest = left;
                draft = draft.and_then(|draft| draft.write(&bytes));
            }
            Some((Tag::End, _)) => {
                let came = order.size_bytes - rest;
                draft = draft.and(Err(format!("{came} of {} bytes came", order.size_bytes)));
                has_ended = true;
                break;
            }
            Some(_) => return Err(Hangup),
            None => return Err(Hangup),
        }
    }
    let reply = match draft.and_then(|draft| draft.publish(order.mode.unwrap_or(MODE))) {
        Ok(()) => FilesReply {
            ok: true,
            ..FilesReply::default()
        },
        Err(error) => failure(error),
    };
    connection.reply(&reply)?;
    if !has_ended {
        connection.linger();
    }
    Ok(())
}

/// A file under a name of its own; removed unless it is published.
#[derive(Debug)]
struct Draft {
    file: File,
    path: PathBuf,
    target: PathBuf,
    published: bool,
}

impl Draft {
    fn begin(order: &Order) -> Result<Self, String> {
        let target = target(&absolute(&order.path), order.name.as_deref())?;
        let name = target
            .file_name()
            .ok_or_else(|| told(&target, &"not a file's name"))?;
        // One worker writes one file, so its number makes the name its own.
        let number = rustix::process::getpid().as_raw_nonzero();
        let mut draft_name = std::ffi::OsString::from(format!(".vmrepl-{number}-"));
        // Long names must stay within the file system's limit.
        draft_name.push(name.to_string_lossy().chars().take(32).collect::<String>());
        let path = target.with_file_name(draft_name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| told(&target, &error))?;
        Ok(Self {
            file,
            path,
            target,
            published: false,
        })
    }

    fn write(mut self, bytes: &[u8]) -> Result<Self, String> {
        match self.file.write_all(bytes) {
            Ok(()) => Ok(self),
            Err(error) => Err(told(&self.target, &error)),
        }
    }

    /// Order matters: nobody may see the file under its name before it is whole and has its mode.
    fn publish(mut self, mode: u32) -> Result<(), String> {
        let permissions = fs::Permissions::from_mode(mode & 0o7777);
        let told = |error| told(&self.target, &error);
        self.file.set_permissions(permissions).map_err(told)?;
        fs::rename(&self.path, &self.target).map_err(told)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// A folder takes the file under the base name of `name`.
fn target(path: &Path, name: Option<&str>) -> Result<PathBuf, String> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let base = name
        .unwrap_or("")
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or("");
    match base {
        "" | "." | ".." => Err(told(path, &"is a folder, and `name` gives no file's name")),
        base => Ok(path.join(base)),
    }
}

fn told(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_out_of_a_folder() {
        let folder = std::env::temp_dir();
        let put = |name| target(&folder, name);
        assert_eq!(put(Some("../../etc/x")), Ok(folder.join("x")));
        assert_eq!(put(Some("a/b")), Ok(folder.join("b")));
        for name in [
            None,
            Some(""),
            Some("."),
            Some(".."),
            Some("a/.."),
            Some("/"),
        ] {
            assert!(
                put(name).is_err_and(|error| error.ends_with("gives no file's name")),
                "{name:?}"
            );
        }
    }
}
