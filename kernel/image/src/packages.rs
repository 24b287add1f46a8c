//! The step `python-packages`: pip puts the recipe's wheels into a tree of their own.

use std::path::Path;

use crate::cache::Work;
use crate::debian::Package;
use crate::error::{ImageError, at};
use crate::key::{Key, KeyBuilder};
use crate::recipe::{Recipe, requirement_name};
use crate::suite::Suite;
use crate::tool::{Tool, ToolError};
use crate::tree;

/// The key of the packages' tree.
pub(crate) fn key(recipe: &Recipe, suite: Suite) -> Key {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    let (python, prune) = (sorted(&recipe.python), sorted(&recipe.prune));
    KeyBuilder::new("python-packages", 1)
        .text("place", &suite.packages_dir())
        .list("platforms", suite.platforms().iter().map(String::as_str))
        .list("requirements", python.iter().map(String::as_str))
        .list("prune", prune.iter().map(String::as_str))
        .finish()
}

/// Makes `tree/` with the packages in their place, and `packages.json` with the versions that pip chose.
pub(crate) fn make(recipe: &Recipe, suite: Suite, work: &mut Work<'_>) -> Result<(), ImageError> {
    let place = work.staging.join("tree").join(suite.packages_dir());
    std::fs::create_dir_all(&place).map_err(at("making the folder", &place))?;
    if !recipe.python.is_empty() {
        install(recipe, suite, &place, work)?;
    }
    // Scripts for a shell: their first lines name the builder's Python.
    crate::cache::remove(&place.join("bin"))?;
    for path in &recipe.prune {
        let path = place.join(path);
        if path.is_dir() {
            crate::cache::remove(&path)?;
        } else {
            tree::remove_file(&path)?;
        }
    }
    tree::tame(&work.staging.join("tree"))?;
    let packages = installed(&place)?;
    let list = work.staging.join("packages.json");
    let json = serde_json::to_vec_pretty(&packages).map_err(std::io::Error::from);
    json.and_then(|json| std::fs::write(&list, json))
        .map_err(at("writing", &list))
}

/// Wheels only: building from source would run foreign code on the host, for the host's Python.
fn install(
    recipe: &Recipe,
    suite: Suite,
    place: &Path,
    work: &mut Work<'_>,
) -> Result<(), ImageError> {
    let doing = "installing the recipe's Python packages";
    let tool = pip(work)
        .map_err(ImageError::tool(doing))?
        .args([
            "install",
            "--no-compile",
            "--no-input",
            "--no-warn-script-location",
            "--progress-bar=off",
        ])
        .args([
            "--disable-pip-version-check",
            "--root-user-action=ignore",
            "--only-binary=:all:",
        ])
        .args([
            "--implementation=cp",
            &format!("--python-version=3.{}", suite.python_minor),
        ])
        .args(
            suite
                .platforms()
                .iter()
                .map(|platform| format!("--platform={platform}")),
        )
        .arg("--target")
        .arg(place)
        .env("TMPDIR", work.staging)
        .arg("--")
        .args(&recipe.python);
    let mut collected = 0;
    let progress = &mut *work.progress;
    tool.run_lines(work.cancel, &mut |_, line| {
        if let Some(what) = line.strip_prefix("Collecting ") {
            collected += 1;
            progress.advanced(collected, what);
        } else if line.starts_with("Installing ") {
            progress.advanced(collected, "unpacking");
        }
    })
    .map_err(ImageError::tool(doing))
}

/// The user's `python3` if it has pip, else the system's.
fn pip(work: &Work<'_>) -> Result<Tool, ToolError> {
    for python in ["python3", "/usr/bin/python3"] {
        match Tool::new(python, "python3")
            .args(["-m", "pip", "--version"])
            .run(work.cancel)
        {
            Ok(()) => return Ok(Tool::new(python, "python3").args(["-m", "pip"])),
            Err(ToolError::Missing { .. } | ToolError::Failed { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Err(ToolError::Missing {
        name: "python3 -m pip".to_owned(),
        debian_package: "python3-pip",
    })
}

/// Reads the names and versions from the `NAME-VERSION.dist-info` folders.
fn installed(place: &Path) -> Result<Vec<Package>, ImageError> {
    let mut packages = Vec::new();
    for entry in std::fs::read_dir(place).map_err(at("reading the folder", place))? {
        let name = entry.map_err(at("reading the folder", place))?.file_name();
        let name = name.to_string_lossy();
        if let Some((name, version)) = name
            .strip_suffix(".dist-info")
            .and_then(|name| name.split_once('-'))
        {
            packages.push(Package {
                name: requirement_name(name),
                version: version.to_owned(),
            });
        }
    }
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_follows_requirements_and_prune() {
        let base = Recipe::builtin("base").unwrap();
        let key = |recipe: &Recipe| key(recipe, Suite::DEFAULT);
        let with = base.with_python(&["rich==14", "six==1"]).unwrap();
        let turned = base.with_python(&["six==1", "rich==14"]).unwrap();
        assert_eq!(key(&with), key(&turned));
        assert_ne!(key(&with), key(&base));
        let mut pruned = with.clone();
        pruned.prune.push("rich/tests".to_owned());
        assert_ne!(key(&with), key(&pruned));
        pruned = with.clone();
        pruned.debian.push("git".to_owned());
        assert_eq!(key(&with), key(&pruned));
    }
}
