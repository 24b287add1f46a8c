//! Linux modules from the initramfs.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;

use rustix::io::Errno;

use crate::log;

/// Loads every `*.ko` of `folder` in the order of the names. A module that fails is told and passed
/// over: what depends on it fails with a better message.
pub(super) fn load_all(folder: &Path) {
    let mut modules: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension() == Some(OsStr::new("ko")))
        .collect();
    modules.sort();
    for path in modules {
        let loaded = File::open(&path)
            .map_err(|error| error.to_string())
            .and_then(|file| match rustix::system::finit_module(&file, c"", 0) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(error.to_string()),
            });
        if let Err(error) = loaded {
            log::warn(format_args!("module {}: {error}", path.display()));
        }
    }
}
