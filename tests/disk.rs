//! Copies of the store, and damage done to them.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ground::{TEMPLATE, folder, home, names_of};

/// A home of its own with a copy of the template; images are shared, nobody writes there.
pub(crate) struct Copy {
    folder: tempfile::TempDir,
}

/// Where a section lies in the snapshot file.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Bytes before the table of sections, and of one row in it: see the format of snapshots.
const FIXED_BYTES: usize = 384;
const ROW_BYTES: usize = 80;
const NAME_BYTES: usize = 24;
const COUNT_AT: usize = 84;

impl Copy {
    pub(crate) fn new() -> Self {
        Self::of(TEMPLATE)
    }

    /// With another template.
    pub(crate) fn of(template: &str) -> Self {
        Self::filled(folder(), template)
    }

    /// Without a template: somebody is going to make one.
    pub(crate) fn empty() -> Self {
        let folder = folder();
        symlink(home().join("images"), folder.path().join("images")).unwrap();
        Self { folder }
    }

    /// In an empty folder.
    pub(crate) fn within(folder: tempfile::TempDir) -> Self {
        Self::filled(folder, TEMPLATE)
    }

    fn filled(folder: tempfile::TempDir, template: &str) -> Self {
        symlink(home().join("images"), folder.path().join("images")).unwrap();
        let copy = Self { folder };
        copy.add(template);
        copy
    }

    /// One more template.
    pub(crate) fn add(&self, template: &str) {
        let (from, to) = (home().join("store"), self.store());
        let names = names_of(&from, template).expect("the tests' template is there");
        let id = fs::read_to_string(from.join(names).join(template)).unwrap();
        let id = id.trim();
        for part in [names, "snapshots", "staging"] {
            fs::create_dir_all(to.join(part)).unwrap();
        }
        for (part, into) in [
            (format!("{names}/{template}"), names),
            (format!("snapshots/{id}"), "snapshots"),
        ] {
            let status = Command::new("cp")
                .args(["-a", "--sparse=always"])
                .arg(from.join(part))
                .arg(to.join(into))
                .status()
                .unwrap();
            assert!(status.success(), "cp: {status}");
        }
        let all = Command::new("chmod")
            .args(["-R", "go-w"])
            .arg(&to)
            .status()
            .unwrap();
        assert!(all.success());
    }

    pub(crate) fn home(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.home().join("store")
    }

    /// A file of the only snapshot: `snapshot` or `memory`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let mut snapshots = self.store().join("snapshots").read_dir().unwrap();
        snapshots.next().unwrap().unwrap().path().join(name)
    }

    /// Changes one byte of a file of the snapshot; called twice, it is as it was.
    pub(crate) fn flip(&self, name: &str, offset: u64) {
        let path = self.file(name);
        let file = open_for_damage(&path);
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], offset).unwrap();
    }

    /// Gives it to another user, whole: with its own root file system.
    pub(crate) fn give_to(&self, user: &str) {
        let template = self.sections();
        let record = template.iter().find(|section| section.name == "template");
        let record = record.expect("a template has its record");
        let mut bytes = vec![0; usize::try_from(record.length).unwrap()];
        let snapshot = File::open(self.file("snapshot")).unwrap();
        snapshot.read_exact_at(&mut bytes, record.offset).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let root = Path::new(record["root"].as_str().unwrap());
        let images = self.home().join("images");
        fs::remove_file(&images).unwrap();
        fs::create_dir_all(images.join(root.parent().unwrap())).unwrap();
        fs::copy(home().join("images").join(root), images.join(root)).unwrap();
        let mut chown = Command::new("chown");
        chown.args(["-R", &format!("{user}:{user}")]);
        let status = chown.arg(self.home()).status().unwrap();
        assert!(status.success(), "chown: {status}");
    }

    /// The sections of the snapshot file.
    pub(crate) fn sections(&self) -> Vec<Section> {
        let bytes = fs::read(self.file("snapshot")).unwrap();
        let number = |at: usize, count: usize| {
            let mut wide = [0; 8];
            wide[..count].copy_from_slice(&bytes[at..at + count]);
            u64::from_le_bytes(wide)
        };
        let mut found = Vec::new();
        for row in 0..usize::try_from(number(COUNT_AT, 4)).unwrap() {
            let at = FIXED_BYTES + row * ROW_BYTES;
            let name = String::from_utf8_lossy(&bytes[at..at + NAME_BYTES]);
            found.push(Section {
                name: name.trim_end_matches('\0').to_owned(),
                offset: number(at + NAME_BYTES + 8, 8),
                length: number(at + NAME_BYTES + 16, 8),
            });
        }
        found
    }
}

/// Published files are read-only, which is no protection against damage.
fn open_for_damage(path: &Path) -> File {
    let mut mode = path.metadata().unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o600);
    fs::set_permissions(path, mode).unwrap();
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}
