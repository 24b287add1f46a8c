//! The recipe file: its keys, what each may hold, and how one recipe extends another.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::{AddedFile, BUILTIN, LANGUAGES, PYTHON, Recipe, RecipeError, requirement_name};
use crate::limits::{
    MEMORY_MAX_BYTES, MEMORY_MIN_BYTES, MIB, RECIPE_BYTES, RECIPE_NAME_BYTES, VCPUS_MAX,
};
use crate::suite::Suite;

/// The one recipe that extends no other.
const BASE: &str = "base";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeFile {
    name: String,
    #[serde(default)]
    description: String,
    extends: Option<String>,
    language: Option<String>,
    suite: Option<String>,
    #[serde(default)]
    debian: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    setup: Vec<String>,
    #[serde(default)]
    python: Vec<String>,
    #[serde(default)]
    prune: Vec<String>,
    #[serde(default)]
    files: Vec<FileEntry>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    memory: Option<String>,
    vcpus: Option<u8>,
    #[serde(default)]
    warm: Vec<String>,
    #[serde(default)]
    limits: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    source: PathBuf,
    target: String,
}

/// Reads a recipe file; `depth` is how many more recipes it may stand on.
pub(super) fn load(path: &Path, depth: usize) -> Result<Recipe, RecipeError> {
    let file = path.display().to_string();
    let read = |source| RecipeError::Read {
        file: file.clone(),
        source,
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|opened| opened.take(RECIPE_BYTES + 1).read_to_string(&mut text))
        .map_err(read)?;
    if text.len() as u64 > RECIPE_BYTES {
        return Err(RecipeError::Syntax {
            file,
            message: format!("it is longer than {RECIPE_BYTES} bytes"),
        });
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    parse(&text, &file, Some(folder), depth)
}

/// Parses a recipe; `folder` is what its relative paths start from, none for a built-in one.
pub(super) fn parse(
    text: &str,
    file: &str,
    folder: Option<&Path>,
    depth: usize,
) -> Result<Recipe, RecipeError> {
    let own: RecipeFile = toml::from_str(text).map_err(|error| RecipeError::Syntax {
        file: file.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })?;
    let folder = folder.unwrap_or(Path::new(""));
    let mut recipe = parent(&own, file, folder, depth)?;
    check(&own, &mut recipe).map_err(|(key, message)| RecipeError::Value {
        file: file.to_owned(),
        key,
        message,
    })?;
    merge(own, folder, &mut recipe);
    Ok(recipe)
}

/// What a recipe starts from. Each but `base` extends another one, for a guest without Python cannot run a cell.
fn parent(
    own: &RecipeFile,
    file: &str,
    folder: &Path,
    depth: usize,
) -> Result<Recipe, RecipeError> {
    let wrong = |message: String| RecipeError::Value {
        file: file.to_owned(),
        key: "extends",
        message,
    };
    let name = match &own.extends {
        None if own.name == BASE => return Ok(empty()),
        None => BASE,
        Some(name) => name,
    };
    if depth == 0 {
        return Err(wrong("too many recipes extend one another".to_owned()));
    }
    if BUILTIN.iter().any(|(builtin, _)| *builtin == name) {
        return Recipe::builtin(name);
    }
    if Path::new(name).extension().is_none_or(|end| end != "toml") {
        return Err(wrong(format!(
            "`{name}` is neither a built-in recipe nor the path of a .toml file"
        )));
    }
    load(&folder.join(name), depth - 1)
}

fn empty() -> Recipe {
    Recipe {
        name: String::new(),
        description: String::new(),
        language: PYTHON.to_owned(),
        suite: Suite::DEFAULT.name.to_owned(),
        debian: Vec::new(),
        exclude: Vec::new(),
        setup: Vec::new(),
        python: Vec::new(),
        prune: Vec::new(),
        files: Vec::new(),
        env: BTreeMap::new(),
        memory_bytes: 512 * MIB,
        vcpus: 1,
        warm: Vec::new(),
        limits: Vec::new(),
    }
}

/// Checks every value, and takes over those that stand for one number or name. An error names its key.
fn check(own: &RecipeFile, recipe: &mut Recipe) -> Result<(), (&'static str, String)> {
    check_name(&own.name).map_err(|message| ("name", message))?;
    if let Some(language) = &own.language {
        check_language(language).map_err(|message| ("language", message))?;
    }
    each(&own.debian, check_debian).map_err(|message| ("debian", message))?;
    each(&own.exclude, check_exclude).map_err(|message| ("exclude", message))?;
    each(&own.setup, check_setup).map_err(|message| ("setup", message))?;
    each(&own.python, check_requirement).map_err(|message| ("python", message))?;
    each(&own.prune, check_prune).map_err(|message| ("prune", message))?;
    for (name, content) in &own.env {
        check_env(name, content).map_err(|message| ("env", message))?;
    }
    for entry in &own.files {
        check_target(&entry.target).map_err(|message| ("files", message))?;
    }
    if let Some(memory) = &own.memory {
        recipe.memory_bytes = parse_memory(memory).map_err(|message| ("memory", message))?;
    }
    if let Some(suite) = &own.suite {
        Suite::named(suite)
            .ok_or_else(|| format!("`{suite}` is not known here; known: {}", Suite::names()))
            .map_err(|message| ("suite", message))?;
        recipe.suite.clone_from(suite);
    }
    if let Some(vcpus) = own.vcpus {
        if !(1..=VCPUS_MAX).contains(&vcpus) {
            return Err(("vcpus", format!("{vcpus} is not between 1 and {VCPUS_MAX}")));
        }
        recipe.vcpus = vcpus;
    }
    Ok(())
}

/// Adds a recipe's own lists to those of what it extends. A Python package named again replaces the earlier one.
fn merge(own: RecipeFile, folder: &Path, recipe: &mut Recipe) {
    recipe.name = own.name;
    recipe.description = own.description;
    for package in own.debian {
        if !recipe.debian.contains(&package) {
            recipe.debian.push(package);
        }
    }
    for requirement in own.python {
        let name = requirement_name(&requirement);
        recipe
            .python
            .retain(|known| requirement_name(known) != name);
        recipe.python.push(requirement);
    }
    recipe
        .files
        .extend(own.files.into_iter().map(|entry| AddedFile {
            source: folder.join(entry.source),
            target: entry.target,
        }));
    recipe.exclude.extend(own.exclude);
    recipe.setup.extend(own.setup);
    recipe.prune.extend(own.prune);
    recipe.env.extend(own.env);
    if let Some(language) = own.language
        && language != recipe.language
    {
        // Cells of another language warm nothing up.
        recipe.warm.clear();
        recipe.language = language;
    }
    recipe.warm.extend(own.warm);
    // In the order of setting: what a recipe says itself counts.
    recipe.limits.extend(own.limits);
}

fn each(values: &[String], check: fn(&str) -> Result<(), String>) -> Result<(), String> {
    values.iter().try_for_each(|value| check(value))
}

fn check_name(name: &str) -> Result<(), String> {
    let good =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name.is_empty()
        || name.len() > RECIPE_NAME_BYTES
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.chars().all(good)
    {
        return Err(format!(
            "`{name}` is not a name: 1 to {RECIPE_NAME_BYTES} of a-z 0-9 - _ . with a letter first"
        ));
    }
    Ok(())
}

fn check_language(language: &str) -> Result<(), String> {
    if LANGUAGES.contains(&language) {
        return Ok(());
    }
    Err(format!(
        "`{language}` is not a language of cells; known: {}",
        LANGUAGES.join(", ")
    ))
}

fn parse_memory(memory: &str) -> Result<u64, String> {
    let wrong = || {
        format!("`{memory}` is not a size: write a whole number with M or G, such as 512M or 2G")
    };
    let (number, unit) = match memory.char_indices().next_back() {
        Some((at, 'M')) => (&memory[..at], MIB),
        Some((at, 'G')) => (&memory[..at], 1024 * MIB),
        _ => return Err(wrong()),
    };
    if number.is_empty() || !number.bytes().all(|c| c.is_ascii_digit()) {
        return Err(wrong());
    }
    let bytes = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit));
    match bytes {
        Some(bytes) if (MEMORY_MIN_BYTES..=MEMORY_MAX_BYTES).contains(&bytes) => Ok(bytes),
        _ => Err(format!(
            "`{memory}` is not between {}M and {}G",
            MEMORY_MIN_BYTES / MIB,
            MEMORY_MAX_BYTES / MIB / 1024
        )),
    }
}

fn check_debian(package: &str) -> Result<(), String> {
    let (name, version) = package.split_once('=').unwrap_or((package, "1"));
    let name_ok = name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c));
    let version_ok = version.starts_with(|c: char| c.is_ascii_alphanumeric())
        && version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".+-~:".contains(c));
    if name_ok && version_ok {
        Ok(())
    } else {
        Err(format!(
            "`{package}` is not a Debian package: write name or name=version"
        ))
    }
}

/// A requirement may name a package, its extras, versions and markers; never a path, an address or an option of pip.
pub(super) fn check_requirement(requirement: &str) -> Result<(), String> {
    let name = requirement_name(requirement);
    let name_ok = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && !name.ends_with('-');
    let rest_ok = requirement
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.[],<>=!~*+; '\"()".contains(c));
    if name_ok && rest_ok && requirement.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Ok(())
    } else {
        Err(format!(
            "`{requirement}` is not a Python requirement: write name==version"
        ))
    }
}

/// A pattern of dpkg's: `*` stands for any text, slashes too.
fn check_exclude(path: &str) -> Result<(), String> {
    let parts = path.strip_prefix('/').map(|path| path.split('/'));
    let good = |part: &str| !matches!(part, "" | "." | "..") && part != "*";
    let good = |mut parts: std::str::Split<'_, char>| {
        let first = parts.next().is_some_and(good);
        first && parts.all(|part| part == "*" || good(part))
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "/*._+-@".contains(c);
    if path.chars().all(plain) && parts.is_some_and(good) {
        Ok(())
    } else {
        Err(format!(
            "`{path}` is not an absolute path, with or without `*`, of files in Debian packages"
        ))
    }
}

fn check_setup(command: &str) -> Result<(), String> {
    if command.trim().is_empty() || command.contains('\0') {
        return Err(format!("`{}` is not a command", command.escape_debug()));
    }
    Ok(())
}

fn check_prune(path: &str) -> Result<(), String> {
    let mut parts = Path::new(path).components();
    if path.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
        return Err(format!(
            "`{path}` is not a relative path inside the Python packages"
        ));
    }
    Ok(())
}

fn check_env(name: &str, content: &str) -> Result<(), String> {
    let name_ok = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !name_ok {
        return Err(format!(
            "`{name}` is not the name of an environment variable"
        ));
    }
    if content.contains(['\n', '\r', '\0']) {
        return Err(format!("the value of `{name}` must be one line"));
    }
    Ok(())
}

fn check_target(target: &str) -> Result<(), String> {
    let path = Path::new(target);
    let normal = path
        .components()
        .skip(1)
        .all(|part| matches!(part, Component::Normal(_)));
    if !path.is_absolute() || !normal || path.components().count() < 2 {
        return Err(format!(
            "the target `{target}` is not an absolute path without `..`"
        ));
    }
    Ok(())
}
