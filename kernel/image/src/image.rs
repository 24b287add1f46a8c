//! A built image: plain data that the rooms above hand to a machine.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::debian::Package;
use crate::error::{ImageError, at};
use crate::limits::MANIFEST_BYTES;
use crate::linux::{Linux, read_limited};
use crate::recipe::{Recipe, requirement_name};
use crate::root::Format;

/// The version of the manifest's layout.
const MANIFEST_FORMAT: u32 = 1;

/// An image on the disk. Its files never change; another build makes another folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The ELF file of Linux, to enter by PVH.
    pub vmlinux: PathBuf,
    /// The initial RAM file system, with the agent as `/init`.
    pub initramfs: PathBuf,
    /// The read-only root file system.
    pub root: PathBuf,
    /// The hash of what the image contains, and of how it is started: two images with one digest are interchangeable,
    /// also for snapshots that were made on either.
    pub digest: String,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// What cells are written in.
    pub language: String,
    /// Cells that warm the runner up.
    pub warm: Vec<String>,
    /// What each cell may take.
    pub limits: Vec<String>,
    /// The recipe's name.
    pub recipe_name: String,
    /// What `uname -r` says in the guest.
    pub linux_version: String,
    /// All that is known about the image.
    pub manifest: Manifest,
}

/// What an image was made of, as `manifest.json` beside its files says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this layout.
    pub format: u32,
    /// The hash of what went in: the recipe, its files, the agent and the runner. Not the versions that the archives
    /// chose; those are below.
    pub inputs: String,
    /// The hash of what came out; see [`Image::digest`].
    pub digest: String,
    /// The recipe, with what it extends merged in.
    pub recipe: Recipe,
    /// Linux and its package.
    pub linux: Linux,
    /// The file system of the root.
    pub root_format: Format,
    /// Every installed Debian package.
    pub debian: Vec<Package>,
    /// Every installed Python package.
    pub python: Vec<Package>,
    /// The image's files.
    pub files: Files,
}

/// The files of an image, each by its name in the image's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Linux.
    pub vmlinux: FileInfo,
    /// The initial RAM file system.
    pub initramfs: FileInfo,
    /// The root file system.
    pub root: FileInfo,
}

/// One file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Its name in the folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its BLAKE3 hash.
    pub blake3: String,
}

impl Image {
    /// Opens an image that was built before.
    ///
    /// # Errors
    ///
    /// [`ImageError::Manifest`] when the manifest is damaged, of another version, or a file has another length.
    pub fn open(folder: &Path) -> Result<Self, ImageError> {
        let wrong = |found: String| ImageError::Manifest {
            path: folder.to_owned(),
            found,
        };
        let bytes = read_limited(&folder.join("manifest.json"), MANIFEST_BYTES)?;
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| wrong(format!("its manifest is not valid: {error}")))?;
        if manifest.format != MANIFEST_FORMAT {
            let format = manifest.format;
            return Err(wrong(format!(
                "its manifest has format {format}, this program reads {MANIFEST_FORMAT}"
            )));
        }
        let place = |file: &FileInfo| {
            if file.name.contains('/') || file.name.starts_with('.') {
                return Err(wrong(format!("`{}` is not the name of a file", file.name)));
            }
            let path = folder.join(&file.name);
            let bytes = std::fs::metadata(&path)
                .map_err(at("reading", &path))?
                .len();
            if bytes != file.bytes {
                return Err(wrong(format!(
                    "`{}` has {bytes} bytes instead of {}",
                    file.name, file.bytes
                )));
            }
            Ok(path)
        };
        Ok(Self {
            vmlinux: place(&manifest.files.vmlinux)?,
            initramfs: place(&manifest.files.initramfs)?,
            root: place(&manifest.files.root)?,
            digest: manifest.digest.clone(),
            memory_bytes: manifest.recipe.memory_bytes,
            vcpus: manifest.recipe.vcpus,
            language: manifest.recipe.language.clone(),
            warm: manifest.recipe.warm.clone(),
            limits: manifest.recipe.limits.clone(),
            recipe_name: manifest.recipe.name.clone(),
            linux_version: manifest.linux.release.clone(),
            manifest,
        })
    }
}

impl Manifest {
    /// Returns the Python packages whose version the recipe leaves open: another build may get other ones.
    #[must_use]
    pub fn unpinned_python(&self) -> Vec<&Package> {
        let is_pinned = |package: &Package| {
            self.recipe.python.iter().any(|requirement| {
                requirement_name(requirement) == package.name
                    && requirement
                        .split_once("==")
                        .is_some_and(|(_, version)| version == package.version)
            })
        };
        self.python
            .iter()
            .filter(|package| !is_pinned(package))
            .collect()
    }

    /// Makes the manifest of an image; the digest follows from the files and from how the image is started.
    pub(crate) fn new(
        inputs: String,
        recipe: Recipe,
        linux: Linux,
        root_format: Format,
        packages: (Vec<Package>, Vec<Package>),
        files: Files,
    ) -> Self {
        let mut digest = crate::key::KeyBuilder::new("digest", 1)
            .text("vmlinux", &files.vmlinux.blake3)
            .text("initramfs", &files.initramfs.blake3)
            .text("root", &files.root.blake3)
            .text("memory", &recipe.memory_bytes.to_string())
            .text("vcpus", &recipe.vcpus.to_string())
            .list("warm", recipe.warm.iter().map(String::as_str));
        if !recipe.limits.is_empty() {
            digest = digest.list("limits", recipe.limits.iter().map(String::as_str));
        }
        let digest = digest.finish().to_hex();
        Self {
            format: MANIFEST_FORMAT,
            inputs,
            digest,
            recipe,
            linux,
            root_format,
            debian: packages.0,
            python: packages.1,
            files,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
        }
    }

    fn manifest(recipe: Recipe, root: &str) -> Manifest {
        let file = |name: &str, content: &str| FileInfo {
            name: name.to_owned(),
            bytes: content.len() as u64,
            blake3: blake3::hash(content.as_bytes()).to_hex().to_string(),
        };
        let linux = Linux {
            release: "6.1.0-1-cloud-amd64".to_owned(),
            package: package("linux-image", "6.1.1-1"),
        };
        let python = vec![package("polars", "1.35.2"), package("polars-runtime", "1")];
        let files = Files {
            vmlinux: file("vmlinux", "linux"),
            initramfs: file("initramfs.cpio", "agent"),
            root: file("root.img", root),
        };
        Manifest::new(
            "in".to_owned(),
            recipe,
            linux,
            Format::Erofs,
            (Vec::new(), python),
            files,
        )
    }

    fn write(folder: &Path, manifest: &Manifest, root: &str) {
        for (name, content) in [
            ("vmlinux", "linux"),
            ("initramfs.cpio", "agent"),
            ("root.img", root),
        ] {
            std::fs::write(folder.join(name), content).unwrap();
        }
        std::fs::write(
            folder.join("manifest.json"),
            serde_json::to_vec(manifest).unwrap(),
        )
        .unwrap();
    }

    #[test]
    fn an_image_opens_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let recipe = Recipe::builtin("base").unwrap();
        write(dir.path(), &manifest(recipe.clone(), "root"), "root");
        let image = Image::open(dir.path()).unwrap();
        assert_eq!(image.root, dir.path().join("root.img"));
        assert_eq!(
            (&image.warm, image.memory_bytes),
            (&recipe.warm, recipe.memory_bytes)
        );
        assert_eq!(image.linux_version, "6.1.0-1-cloud-amd64");
        let json = serde_json::to_string(&image).unwrap();
        assert_eq!(serde_json::from_str::<Image>(&json).unwrap(), image);
    }

    #[test]
    fn the_digest_follows_what_came_out_and_how_it_starts() {
        let base = Recipe::builtin("base").unwrap();
        let digest = |change: fn(&mut Recipe), root| {
            let mut recipe = base.clone();
            change(&mut recipe);
            manifest(recipe, root).digest
        };
        let first = digest(|_| (), "root");
        assert_eq!(first, digest(|recipe| recipe.description.clear(), "root"));
        assert_ne!(first, digest(|_| (), "another root"));
        assert_ne!(first, digest(|recipe| recipe.memory_bytes *= 2, "root"));
        assert_ne!(first, digest(|recipe| recipe.warm.clear(), "root"));
    }

    #[test]
    fn a_damaged_image_is_refused_with_a_reason() {
        let good = manifest(Recipe::builtin("base").unwrap(), "root");
        let refusal = |change: fn(&mut Manifest)| {
            let dir = tempfile::tempdir().unwrap();
            let mut manifest = good.clone();
            change(&mut manifest);
            write(dir.path(), &manifest, "root");
            Image::open(dir.path()).unwrap_err().to_string()
        };
        assert!(refusal(|manifest| manifest.format = 9).contains("format 9"));
        assert!(refusal(|manifest| manifest.files.root.bytes = 3).contains("4 bytes instead of 3"));
        assert!(
            refusal(|manifest| manifest.files.root.name = "../x".to_owned())
                .contains("not the name")
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("manifest.json"), "{").unwrap();
        let error = Image::open(dir.path()).unwrap_err();
        assert!(
            error.to_string().contains("not valid") && error.hint().is_some(),
            "{error}"
        );
    }

    #[test]
    fn what_the_recipe_leaves_open_is_named() {
        let recipe = Recipe::builtin("base").unwrap();
        let recipe = recipe.with_python(&["Polars==1.35.2"]).unwrap();
        let manifest = manifest(recipe, "root");
        assert_eq!(
            manifest.unpinned_python(),
            [&package("polars-runtime", "1")]
        );
    }
}
