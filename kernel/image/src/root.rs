//! The step `root`: all trees joined, the guest's own settings added, and made into one read-only file system.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cache::Work;
use crate::error::ImageError;
use crate::key::{Key, KeyBuilder};
use crate::modules;
use crate::recipe::{PYTHON, Recipe};
use crate::tool::{Tool, ToolError};
use crate::tree::{self, Entry};

/// The file system of the guest's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// EROFS: what is made where `mkfs.erofs` is installed.
    Erofs,
    /// SquashFS, in its place.
    Squashfs,
}

impl Format {
    /// Returns the name that `mount -t` knows it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Erofs => modules::EROFS,
            Self::Squashfs => modules::SQUASHFS,
        }
    }

    /// The module that a guest with this root does not need.
    pub(crate) fn other_module(self) -> &'static str {
        match self {
            Self::Erofs => modules::SQUASHFS,
            Self::Squashfs => modules::EROFS,
        }
    }

    /// Chooses by what the host has.
    pub(crate) fn of_host() -> Result<Self, ImageError> {
        for (program, format) in [("mkfs.erofs", Self::Erofs), ("mksquashfs", Self::Squashfs)] {
            if crate::host::is_installed(program) {
                return Ok(format);
            }
        }
        Err(ImageError::Tool {
            doing: "choosing the format of the root file system".to_owned(),
            source: ToolError::Missing {
                name: "mkfs.erofs".to_owned(),
                debian_package: "erofs-utils",
            },
        })
    }
}

/// The person in the guest: the runner and the cells are this user.
const USER_ID: u32 = 1000;

/// The folders that a root is joined from, in order; a later one's files win.
pub(crate) struct Trees {
    pub(crate) folders: Vec<PathBuf>,
}

/// The key of the root file system.
pub(crate) fn key(
    trees: &[Key],
    recipe: &Recipe,
    added: &[Entry],
    format: Format,
) -> Result<Key, ImageError> {
    let start = KeyBuilder::new("root", 1)
        .text("format", format.name())
        .text("env", &env_file(recipe));
    let key = trees.iter().fold(start, |key, tree| key.key("tree", *tree));
    Ok(tree::hash_added(added, key)?.finish())
}

/// Makes `root.img`.
pub(crate) fn make(
    folders: &[PathBuf],
    recipe: &Recipe,
    added: &[Entry],
    format: Format,
    work: &mut Work<'_>,
) -> Result<(), ImageError> {
    let joined = work.staging.join("joined");
    tree::folder(&joined, 0o755)?;
    for folder in folders {
        tree::join(folder, &joined, work.cancel)?;
    }
    settle(&joined, recipe)?;
    tree::copy_added(added, &joined)?;
    work.checkpoint()?;
    work.progress.advanced(1, "writing the file system");
    let image = work.staging.join("root.img");
    file_system(format, &joined, &image)
        .run(work.cancel)
        .map_err(ImageError::tool("making the root file system"))?;
    crate::cache::remove(&joined)
}

/// Not compressed: under emulation the guest's processor is the slow part, and the host's page cache is shared by all
/// machines. All files are root's, with one time stamp.
fn file_system(format: Format, tree: &Path, image: &Path) -> Tool {
    match format {
        Format::Erofs => Tool::new("mkfs.erofs", "erofs-utils")
            .args([
                "--all-root",
                "-T0",
                "-x-1",
                "-U",
                "00000000-0000-0000-0000-000000000000",
            ])
            .args([image, tree]),
        Format::Squashfs => Tool::new("mksquashfs", "squashfs-tools")
            .args([tree, image])
            .args([
                "-all-root",
                "-no-xattrs",
                "-no-progress",
                "-quiet",
                "-all-time",
                "0",
                "-mkfs-time",
                "0",
            ])
            .args(["-noI", "-noD", "-noF", "-noX"]),
    }
}

/// Adds what every guest has: its user, its names, its mount points, and the runner's environment.
fn settle(root: &Path, recipe: &Recipe) -> Result<(), ImageError> {
    let append = |path: &str, line: String, mode| {
        let path = root.join(path);
        let mut text = std::fs::read_to_string(&path).unwrap_or_default();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&line);
        tree::write(&path, text.as_bytes(), mode)
    };
    for folder in [
        "dev",
        "proc",
        "sys",
        "run",
        "home",
        "home/user",
        "etc/vmrepl",
        "root",
    ] {
        tree::folder(&root.join(folder), 0o755)?;
    }
    for folder in ["tmp", "var/tmp"] {
        tree::folder(&root.join(folder), 0o1777)?;
    }
    append(
        "etc/passwd",
        format!("user:x:{USER_ID}:{USER_ID}::/home/user:/bin/bash\n"),
        0o644,
    )?;
    append("etc/group", format!("user:x:{USER_ID}:\n"), 0o644)?;
    append(
        "etc/shadow",
        "user:*:19000:0:99999:7:::\n".to_owned(),
        0o600,
    )?;
    tree::write(&root.join("etc/hostname"), b"vmrepl\n", 0o644)?;
    tree::write(
        &root.join("etc/hosts"),
        b"127.0.0.1 localhost\n::1 localhost ip6-localhost\n",
        0o644,
    )?;
    // There is no network; an empty list makes lookups fail at once.
    tree::write(&root.join("etc/resolv.conf"), b"", 0o644)?;
    tree::write(
        &root.join("etc/vmrepl/env"),
        env_file(recipe).as_bytes(),
        0o644,
    )
}

/// Tells the runner its language.
const LANGUAGE_VARIABLE: &str = "VMREPL_LANGUAGE";

/// `/etc/vmrepl/env`: one `NAME=VALUE` a line. The runner takes its language out of it.
fn env_file(recipe: &Recipe) -> String {
    let language = (LANGUAGE_VARIABLE.to_owned(), recipe.language.clone());
    let language = (language.1 != PYTHON).then_some(language);
    let all = recipe.env.iter();
    all.chain(language.as_ref().map(|(name, value)| (name, value)))
        .fold(String::new(), |mut text, (name, value)| {
            writeln!(text, "{name}={value}").expect("a String takes all that is written to it");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{Cancel, Silent};
    use crate::recipe::AddedFile;

    fn recipe() -> Recipe {
        let mut recipe = Recipe::builtin("base").unwrap();
        recipe.env.insert("A".to_owned(), "1 2".to_owned());
        recipe
    }

    #[test]
    fn the_key_follows_trees_files_environment_and_format() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "1").unwrap();
        let tree = |text| KeyBuilder::new("t", 1).text("t", text).finish();
        let files = tree::added(&[AddedFile {
            source: dir.path().join("f"),
            target: "/f".to_owned(),
        }])
        .unwrap();
        let key = |trees: &[Key], recipe: &Recipe, files: &[Entry], format| {
            key(trees, recipe, files, format).unwrap()
        };
        let mut warm = recipe();
        warm.warm.clear();
        warm.memory_bytes *= 2;
        let mut env = recipe();
        env.env.clear();
        let first = key(&[tree("a"), tree("b")], &recipe(), &files, Format::Erofs);
        assert_eq!(
            first,
            key(&[tree("a"), tree("b")], &warm, &files, Format::Erofs)
        );
        for other in [
            key(&[tree("b"), tree("a")], &recipe(), &files, Format::Erofs),
            key(&[tree("a"), tree("b")], &env, &files, Format::Erofs),
            key(&[tree("a"), tree("b")], &recipe(), &[], Format::Erofs),
            key(&[tree("a"), tree("b")], &recipe(), &files, Format::Squashfs),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn a_root_is_made_of_its_trees_and_the_guests_settings() {
        let dir = tempfile::tempdir().unwrap();
        let debian = dir.path().join("debian");
        std::fs::create_dir_all(debian.join("etc")).unwrap();
        std::fs::write(debian.join("etc/passwd"), "root:x:0:0::/root:/bin/bash").unwrap();
        let joined = dir.path().join("joined");
        std::fs::create_dir(&joined).unwrap();
        tree::join(&debian, &joined, &Cancel::new()).unwrap();
        settle(&joined, &recipe()).unwrap();
        let read = |path: &str| std::fs::read_to_string(joined.join(path)).unwrap();
        assert_eq!(
            read("etc/passwd"),
            "root:x:0:0::/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n"
        );
        assert_eq!(read("etc/vmrepl/env"), "A=1 2\n");
        let shared = std::fs::read_to_string(debian.join("etc/passwd")).unwrap();
        assert_eq!(
            shared, "root:x:0:0::/root:/bin/bash",
            "the cached tree must not change"
        );

        let staging = dir.path().join("staging");
        std::fs::create_dir(&staging).unwrap();
        let mut progress = Silent;
        let mut work = Work {
            staging: &staging,
            progress: &mut progress,
            cancel: &Cancel::new(),
        };
        let format = Format::of_host().unwrap();
        make(&[debian], &recipe(), &[], format, &mut work).unwrap();
        let image = std::fs::read(staging.join("root.img")).unwrap();
        let (at, magic): (usize, [u8; 4]) = match format {
            Format::Erofs => (1024, 0xE0F5_E1E2_u32.to_le_bytes()),
            Format::Squashfs => (0, *b"hsqs"),
        };
        assert_eq!(image[at..at + 4], magic);
        assert_eq!(
            std::fs::read_dir(&staging).unwrap().count(),
            1,
            "only the image stays"
        );
    }
}
