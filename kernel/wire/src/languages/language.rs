//! The languages, by the names that requests give them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a program is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Python 3.
    Python,
    /// TypeScript; its types are not checked.
    TypeScript,
    /// JavaScript.
    JavaScript,
    /// C#.
    CSharp,
    /// C++20.
    Cpp,
    /// Rust.
    Rust,
    /// Go.
    Go,
    /// Bash.
    Bash,
}

/// A name that none of the languages has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no language has this name; known are {}", Language::names())]
pub struct UnknownLanguage;

impl Language {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Python,
        Self::TypeScript,
        Self::JavaScript,
        Self::CSharp,
        Self::Cpp,
        Self::Rust,
        Self::Go,
        Self::Bash,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::TypeScript => "typescript",
            Self::JavaScript => "javascript",
            Self::CSharp => "csharp",
            Self::Cpp => "cpp",
            Self::Rust => "rust",
            Self::Go => "go",
            Self::Bash => "bash",
        }
    }

    /// All names, for people.
    #[must_use]
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for Language {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(name: &str) -> Result<Self, UnknownLanguage> {
        let mut all = Self::ALL.into_iter();
        all.find(|language| language.name() == name)
            .ok_or(UnknownLanguage)
    }
}
