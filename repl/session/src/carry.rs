//! Templates on their way: checked, removed, written to one file and read back.
//!
//! An exported file: a line that names the format, a line of JSON about the root file system, the root
//! file system, then the snapshot as the store writes it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::care::needed_by;
use crate::error::SessionError;
use crate::kind::EngineKind;
use crate::places::Places;
use crate::prepare::point_name;
use crate::template::{Template, TemplateName, names_for, open_store, resolve};

const FORMAT: &str = "vmrepl template 1";
const HEAD_BYTES_MAX: u64 = 64 << 10;
const CHUNK_BYTES: usize = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    name: String,
    root: PathBuf,
    root_bytes: u64,
    root_blake3: String,
}

/// What a check of every byte has found.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    /// Bytes that were compared with their checksums.
    pub checked_bytes: u64,
    /// One sentence a damage.
    pub damage: Vec<String>,
}

/// Compares every byte of a template with its checksums.
///
/// # Errors
/// When the template cannot be found or read at all.
pub fn verify_template(
    places: &Places,
    name: &TemplateName,
    engine: EngineKind,
) -> Result<Verified, SessionError> {
    let store = open_store(places)?;
    let id = resolve(&store, name, engine)?;
    let report = store.verify(&id).map_err(SessionError::Store)?;
    let mut verified = Verified {
        checked_bytes: report.checked_bytes,
        damage: report
            .damage
            .iter()
            .map(|d| format!("{} at byte {}: {}", d.part, d.offset, d.what))
            .collect(),
    };
    match Template::open(places, name, engine) {
        Ok(template) => {
            let (bytes, found) = digest(template.root())?;
            verified.checked_bytes += bytes;
            if found != template.record.root_blake3 {
                verified.damage.push(format!(
                    "root file system {}: its checksum differs",
                    template.root().display()
                ));
            }
        }
        Err(error) if verified.damage.is_empty() => return Err(error),
        // Told above already.
        Err(_) => {}
    }
    Ok(verified)
}

/// Removes the template of a name for an engine, and its snapshot.
///
/// # Errors
/// When there is none, or others depend on it.
pub fn remove_template(
    places: &Places,
    name: &TemplateName,
    engine: EngineKind,
) -> Result<(), SessionError> {
    let store = open_store(places)?;
    let id = resolve(&store, name, engine)?;
    let kind = names_for(engine);
    let own = format!("{kind}/{name}");
    let sessions = needed_by(places, &id)?;
    if !sessions.is_empty() {
        return Err(SessionError::InUse {
            snapshot: id,
            dependents: sessions.join(", "),
        });
    }
    let others: Vec<String> = store
        .dependents(&id)
        .map_err(SessionError::Store)?
        .into_iter()
        .filter(|other| *other != own)
        .collect();
    store
        .remove_name(kind, name.as_str())
        .map_err(SessionError::Store)?;
    if others.is_empty() {
        store.remove(&id).map_err(SessionError::Store)?;
    }
    Ok(())
}

/// Writes a template to one file that another host can import.
///
/// # Errors
/// When it cannot be read or the file cannot be written.
pub fn export_template(
    places: &Places,
    name: &TemplateName,
    engine: EngineKind,
    file: &Path,
) -> Result<(), SessionError> {
    let template = Template::open(places, name, engine)?;
    let failed = |source| SessionError::File {
        verb: "write",
        path: file.display().to_string(),
        source,
    };
    let beside = beside(file);
    let written = (|| {
        let mut out = BufWriter::with_capacity(CHUNK_BYTES, File::create(&beside).map_err(failed)?);
        let head = Head {
            name: name.to_string(),
            root: template.record.root.clone(),
            root_bytes: template.record.root_bytes,
            root_blake3: template.record.root_blake3.clone(),
        };
        let head = serde_json::to_string(&head).map_err(|error| failed(error.into()))?;
        writeln!(out, "{FORMAT}\n{head}").map_err(failed)?;
        let mut root = File::open(template.root()).map_err(failed)?;
        io::copy(&mut root, &mut out).map_err(failed)?;
        open_store(places)?
            .export(&template.id(), &mut out)
            .map_err(SessionError::Transfer)?;
        let out = out
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        out.sync_all().map_err(failed)?;
        fs::rename(&beside, file).map_err(failed)
    })();
    if written.is_err() {
        drop(fs::remove_file(&beside));
    }
    written
}

/// Takes a template from a file, for the engine that it was made on; everything in it is checked before it is published. It is trusted
/// input all the same: it runs what its maker has put into it.
///
/// # Errors
/// When the file is no exported template, is damaged, or cannot be stored.
pub fn import_template(
    places: &Places,
    file: &Path,
    name: Option<TemplateName>,
) -> Result<(TemplateName, EngineKind), SessionError> {
    let failed = |source| SessionError::File {
        verb: "read",
        path: file.display().to_string(),
        source,
    };
    let wrong = |why: &str| SessionError::Export {
        path: file.display().to_string(),
        why: why.to_owned(),
    };
    let mut input = BufReader::with_capacity(CHUNK_BYTES, File::open(file).map_err(failed)?);
    let mut line = String::new();
    (&mut input)
        .take(HEAD_BYTES_MAX)
        .read_line(&mut line)
        .map_err(|_| wrong("it does not start with its format"))?;
    if line.trim_end() != FORMAT {
        return Err(wrong(&format!("it does not start with {FORMAT:?}")));
    }
    line.clear();
    (&mut input)
        .take(HEAD_BYTES_MAX)
        .read_line(&mut line)
        .map_err(|_| wrong("its head is no text"))?;
    let head: Head = serde_json::from_str(&line)
        .map_err(|error| wrong(&format!("its head is no JSON: {error}")))?;
    let inside = head
        .root
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    if !inside {
        return Err(wrong(
            "its root file system would leave the folder of images",
        ));
    }
    let name = match name {
        Some(name) => name,
        None => TemplateName::new(&head.name)?,
    };
    let root = places.images.join(&head.root);
    take_root(&mut input, &root, &head)?;
    let store = open_store(places)?;
    let id = store.import(&mut input).map_err(SessionError::Transfer)?;
    let made_on = store
        .snapshot(&id)
        .map_err(SessionError::Store)?
        .header()
        .facts
        .engine
        .clone();
    let Some(engine) = EngineKind::named(&made_on) else {
        store.remove(&id).map_err(SessionError::Store)?;
        return Err(wrong(&format!("no engine is called {made_on:?}")));
    };
    point_name(places, &store, &name, engine, id)?;
    Template::open(places, &name, engine)?;
    Ok((name, engine))
}

fn take_root(input: &mut impl Read, root: &Path, head: &Head) -> Result<(), SessionError> {
    let failed = |source| SessionError::File {
        verb: "write",
        path: root.display().to_string(),
        source,
    };
    let folder = root.parent().unwrap_or(root);
    fs::create_dir_all(folder).map_err(failed)?;
    let beside = beside(root);
    let taken = (|| {
        let mut out = File::create(&beside)?;
        io::copy(&mut input.take(head.root_bytes), &mut out)?;
        out.sync_all()
    })();
    let checked = taken
        .map_err(failed)
        .and_then(|()| digest(&beside))
        .and_then(|(bytes, found)| {
            if bytes != head.root_bytes || found != head.root_blake3 {
                let text = format!(
                    "{bytes} of {} bytes came, or their checksum differs",
                    head.root_bytes
                );
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, text)));
            }
            fs::rename(&beside, root).map_err(failed)
        });
    if checked.is_err() {
        drop(fs::remove_file(&beside));
    }
    checked
}

fn digest(path: &Path) -> Result<(u64, String), SessionError> {
    let failed = |source| SessionError::File {
        verb: "read",
        path: path.display().to_string(),
        source,
    };
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(&mut File::open(path).map_err(failed)?, &mut hasher).map_err(failed)?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    PathBuf::from(name)
}
