//! Copying with checksums, and folders as tar streams: operations of the files port beside `put_file` and `get_file`.
//!
//! Contents are [`Tag::File`](crate::files::Tag::File) frames up to an empty [`Tag::End`](crate::files::Tag::End), their
//! length unknown before. Who gives a content says its sum behind the end; who takes one says the sum of what came.

use serde::{Deserialize, Serialize};

/// Where a content goes whose length is not known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PutStream {
    /// The target; an existing folder takes the file under the base name of `name`, and must be one if this ends with a slash.
    pub path: String,
    /// The name at the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// When it was changed, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime_ns: Option<i64>,
}

/// Where a folder goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PutTree {
    /// The target; an existing folder takes the other under the base name of `name`, and without a name its content. It must be
    /// one if this ends with a slash.
    pub path: String,
    /// The name at the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What a tar stream held, or what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tree {
    /// Regular files.
    pub files: u64,
    /// Folders, the copied one included.
    pub folders: u64,
    /// Symbolic links, and further names of files.
    pub links: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// How many entries were left out, or are not what they were.
    #[serde(default)]
    pub skipped_count: u64,
    /// The first of them.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
}

/// An entry that was left out, or that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name below the folder.
    pub path: String,
    /// Why.
    pub why: String,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Of what kind it is.
    pub kind: Kind,
    /// Bytes of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// When it was changed, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime_ns: Option<i64>,
    /// Where a link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// What a path can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, a pipe, a socket.
    Other,
    /// Nothing.
    Missing,
}
