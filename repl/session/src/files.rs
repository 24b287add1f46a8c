//! Files into and out of a session's guest, and the modules that a script brings along.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vmrepl_wire::files::{FilesDecoder, Tag, header};
use vmrepl_wire::port;

use crate::error::SessionError;
use crate::limits::{SIBLING_BYTES_MAX, SIBLING_FILES_MAX};
use crate::session::Session;

const CHUNK_BYTES: usize = 64 << 10;

/// Copies a host file to `target` in the guest.
///
/// # Errors
/// When the file cannot be read or the guest refuses it.
pub fn put_file(session: &Session, source: &Path, target: &str) -> Result<(), SessionError> {
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
    let request = json!({
        "v": 1, "op": "put_file", "path": target, "name": name,
        "mode": facts.permissions().mode() & 0o777, "size": facts.len(),
    });
    let mut stream = session.connect(port::FILES)?;
    send(&mut stream, Tag::Control, request.to_string().as_bytes()).map_err(failed)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = facts.len();
    while left > 0 {
        let want = usize::try_from(left)
            .unwrap_or(CHUNK_BYTES)
            .min(CHUNK_BYTES);
        let count = file.read(&mut chunk[..want]).map_err(failed)?;
        if count == 0 {
            send(&mut stream, Tag::End, &[]).map_err(failed)?;
            break;
        }
        send(&mut stream, Tag::File, &chunk[..count]).map_err(failed)?;
        left -= count as u64;
    }
    let mut frames = Frames::new(stream);
    expect_ok(&frames.control().map_err(failed)?, "take", target)?;
    Ok(())
}

/// Makes the folder of a guest path, with those above it.
///
/// # Errors
/// When the guest cannot make it.
pub fn make_folder_of(session: &Session, target: &str) -> Result<(), SessionError> {
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
    let command = format!("cd /home/user && mkdir -p -- '{quoted}'");
    let request = json!({"v": 1, "op": "run", "cmd": command, "shell": "raw", "timeout": 10});
    let mut stream = session.connect(port::FILES)?;
    send(&mut stream, Tag::Control, request.to_string().as_bytes()).map_err(failed)?;
    let mut code = None;
    Frames::new(stream)
        .until(|tag, payload| {
            if tag == Tag::Control {
                let reply: Value = serde_json::from_slice(payload)?;
                code = reply.get("exit_code").and_then(Value::as_i64);
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

/// Copies the guest's file `source` to the host, whole or not at all.
///
/// # Errors
/// When the guest cannot give it or the target cannot be written.
pub fn get_file(session: &Session, source: &str, target: &Path) -> Result<(), SessionError> {
    let failed = |error| SessionError::File {
        verb: "write",
        path: target.display().to_string(),
        source: error,
    };
    let mut stream = session.connect(port::FILES)?;
    let request = json!({"v": 1, "op": "get_file", "path": source});
    send(&mut stream, Tag::Control, request.to_string().as_bytes()).map_err(failed)?;
    let mut frames = Frames::new(stream);
    let reply = frames.control().map_err(failed)?;
    expect_ok(&reply, "give", source)?;
    let mut beside = target.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = frames.file_to(&beside).and_then(|()| {
        let mode = reply.get("mode").and_then(Value::as_u64).unwrap_or(0o644);
        let mode = u32::try_from(mode & 0o777).unwrap_or(0o644);
        fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
        fs::rename(&beside, target)
    });
    written.map_err(|error| {
        drop(fs::remove_file(&beside));
        failed(error)
    })
}

fn expect_ok(reply: &Value, verb: &'static str, path: &str) -> Result<(), SessionError> {
    if reply.get("ok").and_then(Value::as_bool) == Some(true) {
        return Ok(());
    }
    let message = reply
        .get("error")
        .and_then(Value::as_str)
        .unwrap_or("it gave no reason")
        .to_owned();
    Err(SessionError::GuestFile {
        verb,
        path: path.to_owned(),
        message,
    })
}

fn send(stream: &mut UnixStream, tag: Tag, payload: &[u8]) -> io::Result<()> {
    let header = header(tag, payload.len()).map_err(io::Error::other)?;
    stream.write_all(&header)?;
    stream.write_all(payload)
}

struct Frames {
    stream: UnixStream,
    decoder: FilesDecoder,
    buffer: Vec<u8>,
}

impl Frames {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: FilesDecoder::default(),
            buffer: vec![0; CHUNK_BYTES],
        }
    }

    /// Calls `each` with frames until it says that it has had enough.
    fn until(&mut self, mut each: impl FnMut(Tag, &[u8]) -> io::Result<bool>) -> io::Result<()> {
        loop {
            while let Some(frame) = self.decoder.frame().map_err(io::Error::other)? {
                if each(frame.tag, frame.payload)? {
                    return Ok(());
                }
            }
            match self.stream.read(&mut self.buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.decoder.push(&self.buffer[..count]),
            }
        }
    }

    fn control(&mut self) -> io::Result<Value> {
        let mut found = Value::Null;
        self.until(|tag, payload| {
            if tag != Tag::Control {
                return Err(io::Error::other(format!(
                    "a {tag:?} frame where an answer should be"
                )));
            }
            found = serde_json::from_slice(payload)?;
            Ok(true)
        })?;
        Ok(found)
    }

    fn file_to(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::create(path)?;
        self.until(|tag, payload| match tag {
            Tag::File => file.write_all(payload).map(|()| false),
            Tag::End => Ok(true),
            _ => Err(io::Error::other(format!("a {tag:?} frame inside a file"))),
        })
    }
}

/// A module beside a script: where it lies, and its path relative to the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// On the host.
    pub source: PathBuf,
    /// Relative to the script's folder.
    pub relative: PathBuf,
}

/// The modules beside `script` that it, or one of them, names anywhere in its text. A name that only
/// looks like a module costs a small file; one that is missed would cost an import.
///
/// # Errors
/// When they are too many or too large to send.
pub fn siblings(script: &Path, text: &str) -> Result<Vec<Sibling>, SessionError> {
    let folder = script
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let candidates = candidates(folder, script);
    let mut found: Vec<Sibling> = Vec::new();
    let mut texts = vec![text.to_owned()];
    let mut taken = vec![false; candidates.len()];
    let mut bytes = 0;
    while let Some(text) = texts.pop() {
        let words: std::collections::HashSet<&str> = text
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .collect();
        for (at, (module, files)) in candidates.iter().enumerate() {
            if taken[at] || !words.contains(module.as_str()) {
                continue;
            }
            taken[at] = true;
            for sibling in files {
                bytes += sibling.source.metadata().map_or(0, |facts| facts.len());
                if sibling.source.extension().is_some_and(|e| e == "py")
                    && let Ok(text) = fs::read_to_string(&sibling.source)
                {
                    texts.push(text);
                }
                found.push(sibling.clone());
            }
            if found.len() > SIBLING_FILES_MAX || bytes > SIBLING_BYTES_MAX {
                return Err(SessionError::File {
                    verb: "send the modules beside",
                    path: script.display().to_string(),
                    source: io::Error::other(format!(
                        "{} files with {bytes} bytes are over {SIBLING_FILES_MAX} files or {SIBLING_BYTES_MAX} bytes",
                        found.len()
                    )),
                });
            }
        }
    }
    Ok(found)
}

/// Modules and packages in a folder, by name.
fn candidates(folder: &Path, script: &Path) -> Vec<(String, Vec<Sibling>)> {
    let mut list = Vec::new();
    let Ok(entries) = folder.read_dir() else {
        return list;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let (Some(stem), Some(name)) =
            (path.file_stem().and_then(|s| s.to_str()), path.file_name())
        else {
            continue;
        };
        if path.is_dir() && path.join("__init__.py").is_file() {
            let mut files = Vec::new();
            walk(&path, Path::new(name), &mut files);
            list.push((stem.to_owned(), files));
        } else if path.extension().is_some_and(|e| e == "py")
            && path.file_name() != script.file_name()
        {
            list.push((
                stem.to_owned(),
                vec![Sibling {
                    relative: PathBuf::from(name),
                    source: path.clone(),
                }],
            ));
        }
    }
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

fn walk(folder: &Path, relative: &Path, files: &mut Vec<Sibling>) {
    let Ok(entries) = folder.read_dir() else {
        return;
    };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if files.len() > SIBLING_FILES_MAX || name == "__pycache__" {
            continue;
        }
        let relative = relative.join(&name);
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, &relative, files),
            Ok(kind) if kind.is_file() => files.push(Sibling {
                source: path,
                relative,
            }),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_siblings_are_found_through_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("main.py"), "import a\n").unwrap();
        fs::write(at("a.py"), "from pack import thing\n").unwrap();
        fs::write(at("other.py"), "").unwrap();
        fs::create_dir_all(at("pack/inner")).unwrap();
        fs::write(at("pack/__init__.py"), "").unwrap();
        fs::write(at("pack/inner/x.py"), "").unwrap();
        fs::write(at("pack/data.csv"), "1").unwrap();
        let mut found: Vec<_> = siblings(&at("main.py"), "import a\n")
            .unwrap()
            .into_iter()
            .map(|s| s.relative.display().to_string())
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "a.py",
                "pack/__init__.py",
                "pack/data.csv",
                "pack/inner/x.py"
            ]
        );
    }
}
