//! Finding the QEMU to run, and its version.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::limits::OLDEST;

/// A QEMU version. Snapshots belong to `major.minor`, never to a distribution's point release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// An installed QEMU.
#[derive(Debug, Clone)]
pub struct Binary {
    path: PathBuf,
    version: Version,
}

/// Why no QEMU can be used.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    #[error("qemu-system-x86_64 was not found in {searched}")]
    Missing { searched: String },
    #[error("could not run {path}")]
    Run {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} --version printed {printed:?}, which names no version")]
    Version { path: PathBuf, printed: String },
    #[error("{path} is QEMU {found}, older than {}.{}", OLDEST.0, OLDEST.1)]
    Old { path: PathBuf, found: Version },
}

impl Binary {
    /// Finds `qemu-system-x86_64` in the folders of `search_path` (the form of `$PATH`) and asks its
    /// version. Takes about 10 ms, the time QEMU needs to start.
    ///
    /// # Errors
    /// When there is none, it does not run, or it is too old.
    pub fn find(search_path: &std::ffi::OsStr) -> Result<Self, BinaryError> {
        let path = Self::locate(search_path)?;
        let output = Command::new(&path)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .map_err(|source| BinaryError::Run {
                path: path.clone(),
                source,
            })?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let Some(version) = parse_version(&printed) else {
            return Err(BinaryError::Version { path, printed });
        };
        Self::known(path, version)
    }

    /// The path of the first `qemu-system-x86_64` on `search_path`, without running it.
    ///
    /// # Errors
    /// When there is none.
    pub fn locate(search_path: &std::ffi::OsStr) -> Result<PathBuf, BinaryError> {
        std::env::split_paths(search_path)
            .map(|folder| folder.join("qemu-system-x86_64"))
            .find(|path| path.is_file())
            .ok_or_else(|| BinaryError::Missing {
                searched: search_path.to_string_lossy().into_owned(),
            })
    }

    /// A binary whose version is already known (a caller that cached it by the file's identity).
    ///
    /// # Errors
    /// When the version is too old.
    pub fn known(path: PathBuf, version: Version) -> Result<Self, BinaryError> {
        if (version.major, version.minor) < OLDEST {
            return Err(BinaryError::Old {
                path,
                found: version,
            });
        }
        Ok(Self { path, version })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }
}

/// Reads `QEMU emulator version 7.2.22 (...)`.
fn parse_version(printed: &str) -> Option<Version> {
    let rest = printed.split_once("version ")?.1;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    Some(Version {
        major: numbers.next()?.parse().ok()?,
        minor: numbers.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_old_ones_refused() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright";
        let version = parse_version(text).unwrap();
        assert_eq!((version.major, version.minor), (7, 2));
        assert_eq!(parse_version("QEMU"), None);
        assert_eq!(parse_version("version x.y"), None);
        let old = Version { major: 6, minor: 9 };
        let error = Binary::known(PathBuf::from("/q"), old).unwrap_err();
        assert_eq!(error.to_string(), "/q is QEMU 6.9, older than 7.2");
    }

    #[test]
    fn a_missing_binary_names_where_it_was_sought() {
        let error = Binary::find(std::ffi::OsStr::new("/nowhere:/none")).unwrap_err();
        assert!(error.to_string().ends_with("/nowhere:/none"), "{error}");
    }
}
