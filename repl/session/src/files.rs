//! Files into and out of a session's guest.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use vmrepl_wire::files::{FilesDecoder, Tag, header};
use vmrepl_wire::port;

use crate::error::SessionError;
use crate::interrupt::Running;
use crate::limits::{LOOK_EVERY, STALL_DEADLINE};
use crate::session::Session;

const CHUNK_BYTES: usize = 64 << 10;

/// Copies a host file to `target` in the guest.
///
/// # Errors
/// When the file cannot be read or the guest refuses it.
pub fn put_file(session: &Session, source: &Path, target: &str) -> Result<(), SessionError> {
    put(session, source, target).map_err(|error| session.unless_given_up(error))
}

fn put(session: &Session, source: &Path, target: &str) -> Result<(), SessionError> {
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
    let mut stream = Patient::connect(session)?;
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
    make_folder(session, target).map_err(|error| session.unless_given_up(error))
}

fn make_folder(session: &Session, target: &str) -> Result<(), SessionError> {
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
    let mut stream = Patient::connect(session)?;
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
    get(session, source, target).map_err(|error| session.unless_given_up(error))
}

fn get(session: &Session, source: &str, target: &Path) -> Result<(), SessionError> {
    let failed = |error| SessionError::File {
        verb: "write",
        path: target.display().to_string(),
        source: error,
    };
    let mut stream = Patient::connect(session)?;
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

fn send(stream: &mut Patient, tag: Tag, payload: &[u8]) -> io::Result<()> {
    let header = header(tag, payload.len()).map_err(io::Error::other)?;
    stream.write_all(&header)?;
    stream.write_all(payload)
}

/// A stream that gives up when nobody wants the machine any more, or when nothing moves.
struct Patient {
    stream: UnixStream,
    running: Arc<Running>,
}

impl Patient {
    fn connect(session: &Session) -> Result<Self, SessionError> {
        let failed = |source| SessionError::Guest {
            step: "reach the guest's files",
            source,
        };
        let stream = session.connect(port::FILES)?;
        stream.set_read_timeout(Some(LOOK_EVERY)).map_err(failed)?;
        stream.set_write_timeout(Some(LOOK_EVERY)).map_err(failed)?;
        Ok(Self {
            stream,
            running: Arc::clone(session.running()),
        })
    }

    fn patiently<T>(&self, mut act: impl FnMut(&UnixStream) -> io::Result<T>) -> io::Result<T> {
        let until = Instant::now() + STALL_DEADLINE;
        loop {
            match act(&self.stream) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    if self.running.is_given_up() {
                        return Err(io::Error::other(SessionError::Stopped));
                    }
                    if Instant::now() > until {
                        let still =
                            format!("the guest did not move for {} s", STALL_DEADLINE.as_secs());
                        return Err(io::Error::new(io::ErrorKind::TimedOut, still));
                    }
                }
                done => return done,
            }
        }
    }
}

impl Read for Patient {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.patiently(|mut stream| stream.read(into))
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(|mut stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Frames {
    stream: Patient,
    decoder: FilesDecoder,
    buffer: Vec<u8>,
}

impl Frames {
    fn new(stream: Patient) -> Self {
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
