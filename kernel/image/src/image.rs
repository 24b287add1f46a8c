//! A built image: plain data that the rooms above hand to a machine.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::debian::Package;
use crate::error::{ImageError, at};
use crate::limits::MANIFEST_BYTES;
use crate::linux::{Linux, read_limited};
use crate::recipe::Recipe;
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
    /// Cells that warm the runner up.
    pub warm: Vec<String>,
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
            warm: manifest.recipe.warm.clone(),
            recipe_name: manifest.recipe.name.clone(),
            linux_version: manifest.linux.release.clone(),
            manifest,
        })
    }
}

impl Manifest {
    /// Makes the manifest of an image; the digest follows from the files and from how the image is started.
    pub(crate) fn new(
        inputs: String,
        recipe: Recipe,
        linux: Linux,
        root_format: Format,
        packages: (Vec<Package>, Vec<Package>),
        files: Files,
    ) -> Self {
        let digest = crate::key::KeyBuilder::new("digest", 1)
            .text("vmlinux", &files.vmlinux.blake3)
            .text("initramfs", &files.initramfs.blake3)
            .text("root", &files.root.blake3)
            .text("memory", &recipe.memory_bytes.to_string())
            .text("vcpus", &recipe.vcpus.to_string())
            .list("warm", recipe.warm.iter().map(String::as_str))
            .finish()
            .to_hex();
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
