//! Which Linux modules a guest loads, and in which order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cache::Work;
use crate::elf::Elf;
use crate::error::{ImageError, at};
use crate::limits::{MODULE_BYTES, MODULES};
use crate::linux::{read_limited, unpack};
use crate::tree;

/// What a guest needs to reach its root file system and the host under either engine. The order is kept, and each
/// module comes after those that it depends on; the transport comes first, so that devices appear at once.
pub(crate) const WANTED: [&str; 10] = [
    "virtio_ring",
    "virtio",
    "virtio_mmio",
    "virtio_blk",
    "virtio_console",
    "overlay",
    "vsock",
    "vmw_vsock_virtio_transport",
    EROFS,
    SQUASHFS,
];

/// The module of the one root file system.
pub(crate) const EROFS: &str = "erofs";
/// The module of the other.
pub(crate) const SQUASHFS: &str = "squashfs";

/// Copies the wanted modules and their dependencies to `target`, as `NN-NAME.ko` in load order.
pub(crate) fn collect(library: &Path, target: &Path, work: &Work<'_>) -> Result<(), ImageError> {
    std::fs::create_dir(target).map_err(at("making the folder", target))?;
    let mut collector = Collector {
        files: files(library)?,
        built_in: built_in(library)?,
        ordered: Vec::new(),
        work,
    };
    for name in WANTED {
        collector.add(name, 0)?;
    }
    for (number, (name, bytes)) in collector.ordered.iter().enumerate() {
        let path = target.join(format!("{number:02}-{name}.ko"));
        std::fs::write(&path, bytes).map_err(at("writing", &path))?;
    }
    Ok(())
}

struct Collector<'a, 'w> {
    files: BTreeMap<String, PathBuf>,
    built_in: Vec<String>,
    ordered: Vec<(String, Vec<u8>)>,
    work: &'a Work<'w>,
}

impl Collector<'_, '_> {
    fn add(&mut self, name: &str, depth: usize) -> Result<(), ImageError> {
        if self.built_in.iter().any(|known| known == name)
            || self.ordered.iter().any(|(known, _)| known == name)
        {
            return Ok(());
        }
        let doing = || format!("collecting the linux module `{name}`");
        if depth > MODULES || self.ordered.len() >= MODULES {
            return Err(ImageError::unusable(
                doing(),
                format!("more than {MODULES} modules"),
            ));
        }
        let Some(path) = self.files.get(name).cloned() else {
            return Err(ImageError::unusable(
                doing(),
                "neither a module nor built in",
            ));
        };
        let bytes = self.read(&path)?;
        let wrong = |source| ImageError::Elf {
            path: path.clone(),
            source,
        };
        let info = Elf::parse(&bytes)
            .and_then(|elf| elf.section(".modinfo"))
            .map_err(wrong)?;
        for dependency in dependencies(info.unwrap_or_default()) {
            self.add(&dependency, depth + 1)?;
        }
        self.ordered.push((name.to_owned(), bytes));
        Ok(())
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        let bytes = read_limited(path, MODULE_BYTES)?;
        let (program, package) = match path.extension().and_then(|end| end.to_str()) {
            Some("xz") => ("xz", "xz-utils"),
            Some("zst") => ("zstd", "zstd"),
            Some("gz") => ("gzip", "gzip"),
            _ => return Ok(bytes),
        };
        unpack(program, package, &bytes, self.work, MODULE_BYTES)
    }
}

/// All modules of a Linux by name. In a file's name `-` and `_` mean the same.
fn files(library: &Path) -> Result<BTreeMap<String, PathBuf>, ImageError> {
    let mut files = BTreeMap::new();
    for entry in tree::walk(&library.join("kernel"))? {
        let name = entry
            .path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Some((stem, "" | ".xz" | ".zst" | ".gz")) = name.split_once(".ko") {
            files.insert(stem.replace('-', "_"), entry.path.clone());
        }
    }
    Ok(files)
}

fn built_in(library: &Path) -> Result<Vec<String>, ImageError> {
    let path = library.join("modules.builtin");
    let text = std::fs::read_to_string(&path).map_err(at("reading", &path))?;
    let stem = |line: &str| {
        Some(
            line.rsplit('/')
                .next()?
                .strip_suffix(".ko")?
                .replace('-', "_"),
        )
    };
    Ok(text.lines().filter_map(stem).collect())
}

/// `.modinfo` is a list of `name=value`, each ended by a zero; `depends` names modules with commas between them. The
/// package has no `modules.dep`: that is made where a package is installed.
fn dependencies(modinfo: &[u8]) -> Vec<String> {
    modinfo
        .split(|byte| *byte == 0)
        .filter_map(|field| field.strip_prefix(b"depends="))
        .flat_map(|names| names.split(|byte| *byte == b','))
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::small;
    use crate::progress::{Cancel, Silent};

    fn library(root: &Path, modules: &[(&str, &str)], built_in: &str) {
        std::fs::create_dir_all(root.join("kernel/fs")).unwrap();
        for (name, depends) in modules {
            let info = format!("license=GPL\0depends={depends}\0name=x\0");
            std::fs::write(
                root.join("kernel/fs").join(name),
                small(1, ".modinfo", info.as_bytes()),
            )
            .unwrap();
        }
        std::fs::write(root.join("modules.builtin"), built_in).unwrap();
    }

    fn collected(dir: &Path) -> Result<Vec<String>, ImageError> {
        let mut progress = Silent;
        let work = Work {
            staging: dir,
            progress: &mut progress,
            cancel: &Cancel::new(),
        };
        collect(&dir.join("library"), &dir.join("modules"), &work)?;
        let entries = tree::walk(&dir.join("modules"))?;
        Ok(entries
            .iter()
            .map(|entry| entry.relative.display().to_string())
            .collect())
    }

    #[test]
    fn modules_come_after_what_they_depend_on() {
        let dir = tempfile::tempdir().unwrap();
        library(
            &dir.path().join("library"),
            &[
                ("virtio_ring.ko", ""),
                ("virtio.ko", "virtio_ring"),
                ("virtio_mmio.ko", "virtio,virtio_ring"),
                ("virtio_console.ko", "virtio,virtio_ring"),
                ("overlay.ko", ""),
                ("vsock.ko", ""),
                ("vmw-vsock-virtio-transport.ko", "virtio,common"),
                ("common.ko", "vsock"),
                ("erofs.ko", "libcrc32c"),
                ("libcrc32c.ko", ""),
                ("unused.ko", ""),
            ],
            "kernel/fs/squashfs.ko\nkernel/drivers/virtio-blk.ko\n",
        );
        assert_eq!(
            collected(dir.path()).unwrap(),
            [
                "00-virtio_ring.ko",
                "01-virtio.ko",
                "02-virtio_mmio.ko",
                "03-virtio_console.ko",
                "04-overlay.ko",
                "05-vsock.ko",
                "06-common.ko",
                "07-vmw_vsock_virtio_transport.ko",
                "08-libcrc32c.ko",
                "09-erofs.ko",
            ]
        );
    }

    #[test]
    fn a_missing_module_is_named_and_a_circle_ends() {
        let dir = tempfile::tempdir().unwrap();
        library(
            &dir.path().join("library"),
            &[("virtio_ring.ko", "gone")],
            "",
        );
        assert!(
            collected(dir.path())
                .unwrap_err()
                .to_string()
                .contains("`gone`")
        );
        let dir = tempfile::tempdir().unwrap();
        library(
            &dir.path().join("library"),
            &[("virtio_ring.ko", "a"), ("a.ko", "b"), ("b.ko", "a")],
            "",
        );
        assert!(
            collected(dir.path())
                .unwrap_err()
                .to_string()
                .contains("more than")
        );
    }
}
