//! What programs find around them: the environment, and whose it is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A user as programs see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) home: PathBuf,
    pub(crate) shell: String,
}

/// The environment of what runs for a user. In a machine the agent's own is empty; on a host, where there is nobody to
/// name, programs inherit it.
pub(crate) fn surroundings(command: &mut Command, person: Option<&Person>) {
    if let Some(Person { name, home, shell }) = person {
        command
            .env_clear()
            .env("HOME", home)
            .env("USER", name)
            .env("LOGNAME", name)
            .env("SHELL", shell);
        command.env(
            "PATH",
            "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        );
    }
    command
        .env("LANG", "C.UTF-8")
        .env("TERM", "dumb")
        .env("MPLBACKEND", "agg");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
}

/// Reads a file of `NAME=VALUE` lines; none when there is no such file.
pub(crate) fn read_environment(path: &Path) -> Vec<(OsString, OsString)> {
    let text = std::fs::read(path).unwrap_or_default();
    let pairs = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let equals = line
            .iter()
            .position(|byte| *byte == b'=')
            .filter(|at| *at > 0)?;
        let (name, value) = (&line[..equals], &line[equals + 1..]);
        let whole = !line.contains(&0);
        whole.then(|| {
            (
                OsStr::from_bytes(name).into(),
                OsStr::from_bytes(value).into(),
            )
        })
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("env");
        std::fs::write(&path, "A=1 2\n=x\nno equals\nB=\nC=a=b\nD=\0\n").unwrap();
        let read = read_environment(&path);
        let pairs = [("A", "1 2"), ("B", ""), ("C", "a=b")];
        assert_eq!(read, pairs.map(|(name, value)| (name.into(), value.into())));
        assert!(read_environment(&folder.path().join("missing")).is_empty());
    }
}
