//! Why a build failed.

use std::io;
use std::path::{Path, PathBuf};

use crate::bzimage::BzImageError;
use crate::elf::ElfError;
use crate::recipe::RecipeError;
use crate::tool::ToolError;

/// Why an image could not be built or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The build was told to stop.
    #[error("the build was cancelled")]
    Cancelled,
    /// The recipe is wrong.
    #[error("reading the recipe")]
    Recipe(#[from] RecipeError),
    /// A program of the host failed or is missing.
    #[error("{doing}")]
    Tool {
        /// What the build was at.
        doing: String,
        /// How the program failed.
        source: ToolError,
    },
    /// A file of the cache, the recipe or the image could not be used.
    #[error("{doing} `{}`", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The boot image of the Linux package could not be unpacked.
    #[error("extracting linux from `{}`", path.display())]
    BzImage {
        /// The boot image.
        path: PathBuf,
        /// What is wrong with it.
        source: BzImageError,
    },
    /// A module or program is not what it should be.
    #[error("reading `{}`", path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ElfError,
    },
    /// A tool ran well but its result is not usable.
    #[error("{doing}: {found}")]
    Unusable {
        /// What the build was at.
        doing: String,
        /// What it found.
        found: String,
    },
    /// A manifest is damaged or from another version.
    #[error("the image in `{}` cannot be used: {found}", path.display())]
    Manifest {
        /// The image's folder.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
}

impl ImageError {
    /// Says what the user can do about it, when that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Tool { source, .. } => source.hint(),
            Self::Manifest { .. } => {
                Some("remove that folder and build the image again".to_owned())
            }
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some disk space; an image needs up to 3 GB while it is built".to_owned())
            }
            _ => None,
        }
    }

    pub(crate) fn unusable(doing: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Unusable {
            doing: doing.into(),
            found: found.into(),
        }
    }

    /// Names the work that a tool was started for; a cancelled tool is a cancelled build.
    pub(crate) fn tool(doing: impl Into<String>) -> impl FnOnce(ToolError) -> Self {
        let doing = doing.into();
        move |source| match source {
            ToolError::Cancelled => Self::Cancelled,
            source => Self::Tool { doing, source },
        }
    }
}

/// Makes `map_err` on file operations short: `.map_err(at("reading", path))`.
pub(crate) fn at<E: Into<io::Error>>(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::File {
        doing,
        path,
        source: source.into(),
    }
}
