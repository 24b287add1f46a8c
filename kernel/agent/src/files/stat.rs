//! Telling what stands at a path.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use vmrepl_copying::Mtime;
use vmrepl_wire::copying::{Kind, Stat};
use vmrepl_wire::files::FilesReply;

use super::{absolute, failure};

pub(super) fn stat(path: &str, follow: bool) -> FilesReply {
    let path = absolute(path);
    let found = if follow {
        fs::metadata(&path)
    } else {
        fs::symlink_metadata(&path)
    };
    let stat = match found {
        Ok(metadata) => {
            let mut stat = told(&metadata);
            if stat.kind == Kind::Link {
                let target = fs::read_link(&path).ok();
                stat.target = target.map(|target| target.to_string_lossy().into_owned());
            }
            stat
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Stat {
                kind: Kind::Missing,
                size: None,
                mode: None,
                mtime_ns: None,
                target: None,
            }
        }
        Err(error) => return failure(format!("{}: {error}", path.display())),
    };
    FilesReply {
        ok: true,
        stat: Some(stat),
        ..FilesReply::default()
    }
}

fn told(metadata: &Metadata) -> Stat {
    let kind = match metadata.file_type() {
        kind if kind.is_file() => Kind::File,
        kind if kind.is_dir() => Kind::Folder,
        kind if kind.is_symlink() => Kind::Link,
        _ => Kind::Other,
    };
    Stat {
        kind,
        size: metadata.is_file().then_some(metadata.len()),
        mode: Some(metadata.mode() & 0o7777),
        mtime_ns: Some(Mtime::from(metadata).0),
        target: None,
    }
}
