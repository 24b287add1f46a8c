//! A recipe becomes an image: Linux, an initial RAM file system with the agent, and a read-only root file system.
//!
//! In: a [`Recipe`] and a cache folder. Out: an [`Image`], plain data that names files which never change. Never: a
//! half-built image under its final name, a program left running after a cancelled build, or anything of the host's
//! own settings inside of the guest.

mod recipe;
mod suite;

mod builder;
mod cache;
mod key;
mod progress;

mod debian;
mod sources;

mod bytecode;
mod packages;

mod bzimage;
mod elf;
mod linux;
mod modules;

mod guest;
mod initramfs;
mod root;

mod error;
mod host;
mod image;
pub mod limits;
mod tool;
mod tree;

pub use builder::Builder;
pub use bzimage::BzImageError;
pub use debian::Package;
pub use elf::ElfError;
pub use error::ImageError;
pub use host::{ToolCheck, host_tools};
pub use image::{FileInfo, Files, Image, Manifest};
pub use key::Key;
pub use linux::Linux;
pub use progress::{Cancel, Progress, Silent, Step};
pub use recipe::{AddedFile, BUILTIN, LANGUAGES, Recipe, RecipeError};
pub use root::Format;
pub use tool::ToolError;
