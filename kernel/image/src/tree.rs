//! Folder trees on the host: walked in order, joined by hard links, cleaned, and hashed.

use std::fs::{self, FileType, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::error::{ImageError, at};
use crate::key::KeyBuilder;
use crate::limits::RECIPE_FILES;
use crate::progress::Cancel;
use crate::recipe::AddedFile;

/// One entry of a tree; folders come before what is in them.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) relative: PathBuf,
    pub(crate) kind: FileType,
}

/// Lists a tree in name order. Symbolic links are listed, never followed.
pub(crate) fn walk(root: &Path) -> Result<Vec<Entry>, ImageError> {
    let mut entries = Vec::new();
    walk_into(root, Path::new(""), &mut entries)?;
    Ok(entries)
}

fn walk_into(root: &Path, relative: &Path, entries: &mut Vec<Entry>) -> Result<(), ImageError> {
    let folder = root.join(relative);
    let reading = || at("reading the folder", &folder);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(reading())? {
        names.push(entry.map_err(reading())?.file_name());
    }
    names.sort();
    for name in names {
        let relative = relative.join(name);
        let path = root.join(&relative);
        let kind = fs::symlink_metadata(&path)
            .map_err(at("reading", &path))?
            .file_type();
        entries.push(Entry {
            path,
            relative: relative.clone(),
            kind,
        });
        if kind.is_dir() {
            walk_into(root, &relative, entries)?;
        }
    }
    Ok(())
}

/// Adds the tree `from` to the tree `to`: folders are made, files are hard links, an existing file gives way. The
/// shared files must never be written to afterwards: replace them with [`write()`].
pub(crate) fn join(from: &Path, to: &Path, cancel: &Cancel) -> Result<(), ImageError> {
    for entry in walk(from)? {
        if cancel.is_cancelled() {
            return Err(ImageError::Cancelled);
        }
        let target = to.join(&entry.relative);
        let joining = || at("joining", &target);
        if entry.kind.is_dir() {
            if !target.is_dir() {
                fs::create_dir(&target).map_err(joining())?;
                let mode = fs::metadata(&entry.path).map_err(joining())?.permissions();
                fs::set_permissions(&target, mode).map_err(joining())?;
            }
            continue;
        }
        remove_file(&target)?;
        if entry.kind.is_symlink() {
            let points_to = fs::read_link(&entry.path).map_err(joining())?;
            symlink(points_to, &target).map_err(joining())?;
        } else if entry.kind.is_file() {
            fs::hard_link(&entry.path, &target).map_err(joining())?;
        }
    }
    Ok(())
}

/// Removes a file or a symbolic link, if there is one.
pub(crate) fn remove_file(path: &Path) -> Result<(), ImageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(at("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// Writes a file of a tree as a new one, so that a hard link's other names keep their content.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), ImageError> {
    remove_file(path)?;
    fs::write(path, content).map_err(at("writing", path))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(at("writing", path))
}

/// Makes a folder of a tree, with its parents.
pub(crate) fn folder(path: &Path, mode: u32) -> Result<(), ImageError> {
    fs::create_dir_all(path).map_err(at("making the folder", path))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(at("making the folder", path))
}

/// Takes set-user-id marks away (the guest's user gains nothing by them), drops what is neither file, folder nor link,
/// and makes everything readable to its owner, who need not be root.
pub(crate) fn tame(root: &Path) -> Result<(), ImageError> {
    for entry in walk(root)? {
        let path = &entry.path;
        if entry.kind.is_symlink() {
            continue;
        }
        if !entry.kind.is_dir() && !entry.kind.is_file() {
            remove_file(path)?;
            continue;
        }
        let mode = fs::metadata(path)
            .map_err(at("reading", path))?
            .permissions()
            .mode()
            & 0o7777;
        let own = if entry.kind.is_dir() { 0o700 } else { 0o600 };
        let special = if entry.kind.is_dir() { 0o1000 } else { 0 };
        let tamed = (mode & (0o777 | special)) | own;
        if tamed != mode {
            fs::set_permissions(path, Permissions::from_mode(tamed))
                .map_err(at("changing the mode of", path))?;
        }
    }
    Ok(())
}

/// Removes every folder of that name.
pub(crate) fn remove_folders(root: &Path, name: &str) -> Result<(), ImageError> {
    for entry in walk(root)? {
        if entry.kind.is_dir() && entry.relative.file_name().is_some_and(|own| own == name) {
            crate::cache::remove(&entry.path)?;
        }
    }
    Ok(())
}

/// The host's files that a recipe adds, each with its place in the guest's tree; a folder stands for all in it.
pub(crate) fn added(files: &[AddedFile]) -> Result<Vec<Entry>, ImageError> {
    let mut all = Vec::new();
    for file in files {
        let target = Path::new(&file.target)
            .strip_prefix("/")
            .unwrap_or(Path::new(&file.target));
        // The source itself may be a link; what is inside of it is taken as it is.
        let kind = fs::metadata(&file.source)
            .map_err(at("reading the recipe's file", &file.source))?
            .file_type();
        all.push(Entry {
            path: file.source.clone(),
            relative: target.to_owned(),
            kind,
        });
        if kind.is_dir() {
            all.extend(walk(&file.source)?.into_iter().map(|entry| Entry {
                relative: target.join(&entry.relative),
                ..entry
            }));
        }
        if all.len() > RECIPE_FILES {
            return Err(ImageError::unusable(
                format!("reading the recipe's files in `{}`", file.source.display()),
                format!("more than {RECIPE_FILES} files"),
            ));
        }
    }
    Ok(all)
}

/// Hashes the content, places and modes of added files.
pub(crate) fn hash_added(files: &[Entry], mut key: KeyBuilder) -> Result<KeyBuilder, ImageError> {
    for entry in files {
        let reading = || at("reading the recipe's file", &entry.path);
        key = key.bytes("target", entry.relative.as_os_str().as_bytes());
        if entry.kind.is_symlink() {
            let points_to = fs::read_link(&entry.path).map_err(reading())?;
            key = key.bytes("link", points_to.as_os_str().as_bytes());
            continue;
        }
        let mode = fs::metadata(&entry.path)
            .map_err(reading())?
            .permissions()
            .mode()
            & 0o777;
        key = key.text("mode", &format!("{mode:o}"));
        if entry.kind.is_file() {
            key = key.text("content", &hash_file(&entry.path)?);
        }
    }
    Ok(key)
}

/// Copies added files into a tree. Links inside of the tree could lead out of it, so none is followed, except those
/// that join `/bin`, `/lib` and their like with `/usr`.
pub(crate) fn copy_added(files: &[Entry], root: &Path) -> Result<(), ImageError> {
    for entry in files {
        let relative = merged_usr(&entry.relative);
        let target = root.join(&relative);
        let copying = || at("copying the recipe's file to", &target);
        let mut parent = root.to_owned();
        for part in relative.parent().unwrap_or(Path::new("")).components() {
            parent.push(part);
            if parent.is_symlink() {
                return Err(ImageError::unusable(
                    format!(
                        "copying `{}` to `/{}`",
                        entry.path.display(),
                        entry.relative.display()
                    ),
                    format!("`/{}` is a symbolic link", relative.display()),
                ));
            }
            if !parent.is_dir() {
                folder(&parent, 0o755)?;
            }
        }
        let mode = || fs::metadata(&entry.path).map(|data| data.permissions().mode() & 0o777);
        if entry.kind.is_dir() {
            if !target.is_dir() {
                folder(&target, mode().map_err(copying())? | 0o700)?;
            }
            continue;
        }
        remove_file(&target)?;
        if entry.kind.is_symlink() {
            let points_to = fs::read_link(&entry.path).map_err(copying())?;
            symlink(points_to, &target).map_err(copying())?;
        } else if entry.kind.is_file() {
            fs::copy(&entry.path, &target).map_err(copying())?;
            let mode = mode().map_err(copying())? | 0o400;
            fs::set_permissions(&target, Permissions::from_mode(mode)).map_err(copying())?;
        }
    }
    Ok(())
}

fn merged_usr(relative: &Path) -> PathBuf {
    let merged = ["bin", "sbin", "lib", "lib64"]
        .iter()
        .any(|name| relative.starts_with(name));
    if merged {
        Path::new("usr").join(relative)
    } else {
        relative.to_owned()
    }
}

/// Returns the BLAKE3 hash of a file, in hexadecimal digits.
pub(crate) fn hash_file(path: &Path) -> Result<String, ImageError> {
    let mut hasher = blake3::Hasher::new();
    fs::File::open(path)
        .and_then(|file| hasher.update_reader(file).map(|_| ()))
        .map_err(at("reading", path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(root: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn names(root: &Path) -> Vec<String> {
        let names = walk(root).unwrap().into_iter();
        names
            .map(|entry| entry.relative.display().to_string())
            .collect()
    }

    #[test]
    fn joined_trees_share_files_and_the_later_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two, to) = (
            dir.path().join("1"),
            dir.path().join("2"),
            dir.path().join("to"),
        );
        make(&one, &[("a/x", "one"), ("a/y", "one")]);
        make(&two, &[("a/y", "two"), ("b/z", "two")]);
        symlink("x", one.join("a/link")).unwrap();
        fs::create_dir(&to).unwrap();
        join(&one, &to, &Cancel::new()).unwrap();
        join(&two, &to, &Cancel::new()).unwrap();
        assert_eq!(names(&to), ["a", "a/link", "a/x", "a/y", "b", "b/z"]);
        assert_eq!(fs::read_to_string(to.join("a/y")).unwrap(), "two");
        assert_eq!(fs::read_to_string(one.join("a/y")).unwrap(), "one");
        write(&to.join("a/x"), b"new", 0o644).unwrap();
        assert_eq!(
            fs::read_to_string(one.join("a/x")).unwrap(),
            "one",
            "a shared file must not change"
        );
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(matches!(
            join(&one, &to, &cancel),
            Err(ImageError::Cancelled)
        ));
    }

    #[test]
    fn taming_takes_marks_and_pipes_away() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &[("bin/su", ""), ("__pycache__/a.pyc", "")]);
        let mode = |path: &str, mode| {
            fs::set_permissions(dir.path().join(path), Permissions::from_mode(mode)).unwrap();
        };
        mode("bin/su", 0o4055);
        mode("bin", 0o1555);
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            dir.path().join("pipe"),
            rustix::fs::Mode::RWXU,
        )
        .unwrap();
        tame(dir.path()).unwrap();
        remove_folders(dir.path(), "__pycache__").unwrap();
        assert_eq!(names(dir.path()), ["bin", "bin/su"]);
        let mode = |path: &str| {
            fs::metadata(dir.path().join(path))
                .unwrap()
                .permissions()
                .mode()
                & 0o7777
        };
        assert_eq!((mode("bin"), mode("bin/su")), (0o1755, 0o655));
    }

    #[test]
    fn added_files_land_in_the_tree_and_never_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (host, tree, out) = (
            dir.path().join("host"),
            dir.path().join("tree"),
            dir.path().join("out"),
        );
        make(&host, &[("data/one.csv", "1"), ("data/deep/two.csv", "2")]);
        fs::create_dir_all(tree.join("usr/bin")).unwrap();
        fs::create_dir(&out).unwrap();
        symlink("usr/bin", tree.join("bin")).unwrap();
        symlink(&out, tree.join("trap")).unwrap();
        let add = |source: &str, target: &str| {
            let file = AddedFile {
                source: host.join(source),
                target: target.to_owned(),
            };
            copy_added(&added(&[file])?, &tree)
        };
        add("data", "/srv/data").unwrap();
        add("data/one.csv", "/bin/one").unwrap();
        assert_eq!(
            fs::read_to_string(tree.join("srv/data/deep/two.csv")).unwrap(),
            "2"
        );
        assert_eq!(fs::read_to_string(tree.join("usr/bin/one")).unwrap(), "1");
        let error = add("data/one.csv", "/trap/one").unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        assert!(
            add("nothing", "/x")
                .unwrap_err()
                .to_string()
                .contains("nothing")
        );
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    }

    #[test]
    fn the_key_of_added_files_follows_their_content_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &[("d/x", "1")]);
        let key = || {
            let file = AddedFile {
                source: dir.path().join("d"),
                target: "/d".to_owned(),
            };
            let files = added(&[file]).unwrap();
            hash_added(&files, KeyBuilder::new("t", 1))
                .unwrap()
                .finish()
        };
        let first = key();
        assert_eq!(first, key());
        fs::write(dir.path().join("d/x"), "2").unwrap();
        let second = key();
        fs::set_permissions(dir.path().join("d/x"), Permissions::from_mode(0o755)).unwrap();
        let third = key();
        make(dir.path(), &[("d/y", "")]);
        let all = [first, second, third, key()];
        assert!((0..4).all(|a| (0..a).all(|b| all[a] != all[b])));
    }
}
