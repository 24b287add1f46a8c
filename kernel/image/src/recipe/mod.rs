//! A recipe: the list of what a guest holds. Read from TOML, checked, and with everything that it extends merged in.

mod file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::limits::{EXTENDS_DEPTH, RECIPE_NAME_BYTES};

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// There is no such recipe.
    #[error("there is no recipe `{name}`: the built-in ones are {}; the path of a recipe file ends in `.toml`", BUILTIN.map(|(name, _)| name).join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The file could not be read.
    #[error("reading the recipe `{file}`")]
    Read {
        /// The recipe file.
        file: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key that there is none of.
    #[error("the recipe `{file}` is not valid:\n{message}")]
    Syntax {
        /// The recipe file.
        file: String,
        /// What, where, and what is allowed there.
        message: String,
    },
    /// A key has a value that it cannot have.
    #[error("`{key}` in the recipe `{file}`: {message}")]
    Value {
        /// The recipe file.
        file: String,
        /// The key.
        key: &'static str,
        /// What is wrong and what is allowed.
        message: String,
    },
}

/// The recipes that come with the program.
pub const BUILTIN: [(&str, &str); 5] = [
    ("base", include_str!("../../recipes/base.toml")),
    ("python", include_str!("../../recipes/python.toml")),
    ("polyglot", include_str!("../../recipes/polyglot.toml")),
    ("bash", include_str!("../../recipes/bash.toml")),
    ("javascript", include_str!("../../recipes/javascript.toml")),
];

/// The languages that a runner can speak. Other programs run beside it.
pub const LANGUAGES: [&str; 3] = [PYTHON, "javascript", "bash"];

/// The language of a recipe that names none.
pub(crate) const PYTHON: &str = "python";

/// What a guest holds and how large it is. Complete: whatever it extended is merged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The name, for templates and people.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// What cells are written in: one of [`LANGUAGES`].
    #[serde(default = "python", skip_serializing_if = "is_python")]
    pub language: String,
    /// The Debian release, by its code name.
    pub suite: String,
    /// Debian packages, each `name` or `name=version`.
    pub debian: Vec<String>,
    /// What of the Debian packages' content the image leaves out, as absolute paths that may hold `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Commands that finish the tree of Debian packages: a shell inside of it runs them in order, as root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
    /// Python packages as pip requirements. They are resolved together, dependencies too.
    pub python: Vec<String>,
    /// Folders and files inside the Python packages that the image leaves out.
    pub prune: Vec<String>,
    /// Files and folders of the host that are copied in.
    pub files: Vec<AddedFile>,
    /// The environment of the runner, written to `/etc/vmrepl/env` in the guest.
    pub env: BTreeMap<String, String>,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Cells that warm the runner up before it is frozen, in the language of the recipe.
    pub warm: Vec<String>,
    /// What each cell may take, such as `memory=512M`: whoever runs cells knows the names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
}

/// One file or folder that a recipe copies into the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedFile {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where it goes in the guest; an absolute path.
    pub target: String,
}

impl Recipe {
    /// Loads a built-in recipe by its name, or a recipe file by its path.
    ///
    /// # Errors
    ///
    /// [`RecipeError`] says which file, which key and what is allowed.
    pub fn load(name_or_path: &str) -> Result<Self, RecipeError> {
        if BUILTIN.iter().any(|(name, _)| *name == name_or_path) {
            return Self::builtin(name_or_path);
        }
        if Path::new(name_or_path)
            .extension()
            .is_none_or(|end| end != "toml")
        {
            return Err(RecipeError::Unknown {
                name: name_or_path.to_owned(),
            });
        }
        file::load(Path::new(name_or_path), EXTENDS_DEPTH)
    }

    /// Returns one of the [`BUILTIN`] recipes.
    ///
    /// # Errors
    ///
    /// [`RecipeError::Unknown`] when there is none of that name.
    pub fn builtin(name: &str) -> Result<Self, RecipeError> {
        let (_, text) = BUILTIN
            .iter()
            .find(|(builtin, _)| *builtin == name)
            .ok_or_else(|| RecipeError::Unknown {
                name: name.to_owned(),
            })?;
        file::parse(text, &format!("{name} (built in)"), None, EXTENDS_DEPTH)
    }

    /// Returns this recipe with more Python packages, named after them: `python` with `polars==1.35.2` becomes
    /// `python+polars`. A package that the recipe has already is replaced.
    ///
    /// # Errors
    ///
    /// [`RecipeError::Value`] for what is not a requirement that pip finds by name, and for a recipe of another language.
    pub fn with_python(&self, requirements: &[&str]) -> Result<Self, RecipeError> {
        if self.language != PYTHON {
            return Err(RecipeError::Value {
                file: self.name.clone(),
                key: "language",
                message: format!(
                    "cells are {} there; Python packages are of use with a recipe for Python",
                    self.language
                ),
            });
        }
        let mut derived = self.clone();
        for requirement in requirements {
            file::check_requirement(requirement).map_err(|message| RecipeError::Value {
                file: self.name.clone(),
                key: "python",
                message,
            })?;
            let name = requirement_name(requirement);
            derived
                .python
                .retain(|known| requirement_name(known) != name);
            derived.python.push((*requirement).to_owned());
            if !derived.name.split('+').skip(1).any(|part| part == name) {
                derived.name = format!("{}+{name}", derived.name);
            }
            derived.warm.push(import_of(&name));
        }
        if derived.name.len() > RECIPE_NAME_BYTES {
            // Too many packages for a readable name: a digest of them keeps it unique.
            let digest = blake3::hash(derived.name.as_bytes()).to_hex();
            derived.name = format!("{}+{}", self.name, &digest[..12]);
        }
        Ok(derived)
    }
}

fn python() -> String {
    PYTHON.to_owned()
}

fn is_python(language: &str) -> bool {
    language == PYTHON
}

/// Returns a warm-up cell that imports what a package brings, under whatever names; what cannot be imported by itself
/// is left alone.
fn import_of(package: &str) -> String {
    format!(
        r"
import importlib, importlib.metadata, re
for _module, _packages in sorted(importlib.metadata.packages_distributions().items()):
    if not _module.startswith('_') and '{package}' in [re.sub('[-_.]+', '-', _package).lower() for _package in _packages]:
        try:
            importlib.import_module(_module)
        except Exception:
            pass
"
    )
}

/// Returns the name in a requirement the way that the package index compares names: `Scikit_Learn[x]>=1` is `scikit-learn`.
pub(crate) fn requirement_name(requirement: &str) -> String {
    let end = requirement
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
        .unwrap_or(requirement.len());
    let mut name = String::new();
    for c in requirement[..end].trim().chars() {
        match c {
            '-' | '_' | '.' if name.ends_with('-') => {}
            '-' | '_' | '.' => name.push('-'),
            c => name.push(c.to_ascii_lowercase()),
        }
    }
    name
}

#[cfg(test)]
mod tests;
