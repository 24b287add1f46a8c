//! The modules that lie beside a script and that it imports.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::SessionError;
use crate::limits::{SIBLING_BYTES_MAX, SIBLING_FILES_MAX};

/// A module beside a script: where it lies, and its path relative to the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// On the host.
    pub source: PathBuf,
    /// Relative to the script's folder.
    pub relative: PathBuf,
}

/// The modules beside `script` that it, or one of them, names anywhere in its text. A name that only
/// looks like a module costs a small file; one that is missed would cost an import.
///
/// # Errors
/// When they are too many or too large to send.
pub fn siblings(script: &Path, text: &str) -> Result<Vec<Sibling>, SessionError> {
    let folder = script
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let candidates = candidates(folder, script);
    let mut found: Vec<Sibling> = Vec::new();
    let mut texts = vec![text.to_owned()];
    let mut taken = vec![false; candidates.len()];
    let mut bytes = 0;
    while let Some(text) = texts.pop() {
        let words: std::collections::HashSet<&str> = text
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .collect();
        for (at, (module, files)) in candidates.iter().enumerate() {
            if taken[at] || !words.contains(module.as_str()) {
                continue;
            }
            taken[at] = true;
            for sibling in files {
                bytes += sibling.source.metadata().map_or(0, |facts| facts.len());
                if sibling.source.extension().is_some_and(|e| e == "py")
                    && let Ok(text) = fs::read_to_string(&sibling.source)
                {
                    texts.push(text);
                }
                found.push(sibling.clone());
            }
            if found.len() > SIBLING_FILES_MAX || bytes > SIBLING_BYTES_MAX {
                return Err(SessionError::File {
                    verb: "send the modules beside",
                    path: script.display().to_string(),
                    source: io::Error::other(format!(
                        "{} files with {bytes} bytes are over {SIBLING_FILES_MAX} files or {SIBLING_BYTES_MAX} bytes",
                        found.len()
                    )),
                });
            }
        }
    }
    Ok(found)
}

/// Modules and packages in a folder, by name.
fn candidates(folder: &Path, script: &Path) -> Vec<(String, Vec<Sibling>)> {
    let mut list = Vec::new();
    let Ok(entries) = folder.read_dir() else {
        return list;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let (Some(stem), Some(name)) =
            (path.file_stem().and_then(|s| s.to_str()), path.file_name())
        else {
            continue;
        };
        if path.is_dir() && path.join("__init__.py").is_file() {
            let mut files = Vec::new();
            walk(&path, Path::new(name), &mut files);
            list.push((stem.to_owned(), files));
        } else if path.extension().is_some_and(|e| e == "py")
            && path.file_name() != script.file_name()
        {
            list.push((
                stem.to_owned(),
                vec![Sibling {
                    relative: PathBuf::from(name),
                    source: path.clone(),
                }],
            ));
        }
    }
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

fn walk(folder: &Path, relative: &Path, files: &mut Vec<Sibling>) {
    let Ok(entries) = folder.read_dir() else {
        return;
    };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if files.len() > SIBLING_FILES_MAX || name == "__pycache__" {
            continue;
        }
        let relative = relative.join(&name);
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, &relative, files),
            Ok(kind) if kind.is_file() => files.push(Sibling {
                source: path,
                relative,
            }),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_siblings_are_found_through_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("main.py"), "import a\n").unwrap();
        fs::write(at("a.py"), "from pack import thing\n").unwrap();
        fs::write(at("other.py"), "").unwrap();
        fs::create_dir_all(at("pack/inner")).unwrap();
        fs::write(at("pack/__init__.py"), "").unwrap();
        fs::write(at("pack/inner/x.py"), "").unwrap();
        fs::write(at("pack/data.csv"), "1").unwrap();
        let mut found: Vec<_> = siblings(&at("main.py"), "import a\n")
            .unwrap()
            .into_iter()
            .map(|s| s.relative.display().to_string())
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "a.py",
                "pack/__init__.py",
                "pack/data.csv",
                "pack/inner/x.py"
            ]
        );
    }
}
