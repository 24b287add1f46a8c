use std::path::PathBuf;

use super::*;
use crate::limits::MIB;

fn error_of(text: &str) -> String {
    file::parse(text, "mine.toml", None, EXTENDS_DEPTH)
        .unwrap_err()
        .to_string()
}

#[test]
fn the_built_in_recipes_are_valid_and_python_extends_base() {
    let base = Recipe::load("base").unwrap();
    let python = Recipe::load("python").unwrap();
    assert!(base.python.is_empty());
    assert!(
        base.debian
            .iter()
            .all(|package| python.debian.contains(package))
    );
    assert!(python.memory_bytes > base.memory_bytes);
    assert!(python.warm.len() > base.warm.len());
    for name in ["numpy", "pandas", "pyarrow", "duckdb", "matplotlib"] {
        assert!(
            python
                .python
                .iter()
                .any(|pin| pin.starts_with(&format!("{name}=="))),
            "{name}"
        );
    }
    assert!(
        python.python.iter().all(|pin| pin.contains("==")),
        "every package is pinned"
    );
}

#[test]
fn polyglot_has_a_toolchain_for_each_language() {
    let polyglot = Recipe::load("polyglot").unwrap();
    for package in [
        "python3",
        "nodejs",
        "esbuild",
        "mono-mcs",
        "g++",
        "rustc",
        "golang-go",
    ] {
        assert!(polyglot.debian.contains(&package.to_owned()), "{package}");
    }
    assert!(polyglot.exclude.len() > 10);
}

#[test]
fn another_language_takes_no_warm_up_cells_over() {
    let python = Recipe::load("python").unwrap();
    let javascript = Recipe::load("javascript").unwrap();
    assert_eq!(
        (python.language.as_str(), javascript.language.as_str()),
        ("python", "javascript")
    );
    assert_eq!(javascript.warm.len(), 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    std::fs::write(
        &path,
        "name = \"mine\"\nextends = \"javascript\"\nwarm = [\"let x\"]\n",
    )
    .unwrap();
    let mine = Recipe::load(path.to_str().unwrap()).unwrap();
    assert_eq!((mine.language.as_str(), mine.warm.len()), ("javascript", 2));
    let message = error_of("name = \"x\"\nlanguage = \"perl\"\n");
    assert!(
        message.contains("`perl`") && message.contains("python, javascript, bash"),
        "{message}"
    );
    let message = mine.with_python(&["polars"]).unwrap_err().to_string();
    assert!(message.contains("javascript"), "{message}");
}

#[test]
fn an_unknown_key_is_named_with_the_file_and_what_is_allowed() {
    let message = error_of("name = \"x\"\nmemroy = \"1G\"\n");
    for part in ["mine.toml", "memroy", "line 2", "memory"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(error_of("description = \"x\"\n").contains("missing field `name`"));
    assert!(error_of("name = 1\n").contains("invalid type: integer"));
}

#[test]
fn a_wrong_value_is_named_with_its_key() {
    for (line, key, part) in [
        ("memory = \"2T\"", "memory", "512M or 2G"),
        ("memory = \"-2G\"", "memory", "512M or 2G"),
        ("memory = \"16M\"", "memory", "between 128M and 64G"),
        ("memory = \"99999999999999999999G\"", "memory", "between"),
        ("vcpus = 0", "vcpus", "between 1 and 8"),
        ("suite = \"potato\"", "suite", "bookworm"),
        ("debian = [\"--help\"]", "debian", "name=version"),
        ("debian = [\"vim,curl\"]", "debian", "name=version"),
        ("python = [\"-r/etc/passwd\"]", "python", "name==version"),
        ("python = [\"x @ file:///etc\"]", "python", "name==version"),
        ("setup = [\" \"]", "setup", "not a command"),
        ("exclude = [\"usr/x\"]", "exclude", "absolute path"),
        ("exclude = [\"/*\"]", "exclude", "absolute path"),
        ("exclude = [\"/usr/../x\"]", "exclude", "absolute path"),
        ("exclude = [\"/usr/x y\"]", "exclude", "absolute path"),
        ("prune = [\"../x\"]", "prune", "relative path"),
        ("prune = [\"/etc\"]", "prune", "relative path"),
        (
            "files = [{source = \"a\", target = \"b\"}]",
            "files",
            "absolute",
        ),
        (
            "files = [{source = \"a\", target = \"/x/../y\"}]",
            "files",
            "absolute",
        ),
        ("env = {\"A B\" = \"1\"}", "env", "A B"),
        ("env = {A = \"1\\n2\"}", "env", "one line"),
        ("extends = \"nothing\"", "extends", "built-in"),
    ] {
        let message = error_of(&format!("name = \"x\"\n{line}\n"));
        assert!(
            message.contains(&format!("`{key}` in the recipe `mine.toml`")),
            "{line}: {message}"
        );
        assert!(message.contains(part), "{line}: {message}");
    }
    assert!(error_of("name = \"../x\"\n").contains("with a letter first"));
}

#[test]
fn extending_merges_lists_and_replaces_pins() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("one.toml"),
        "name = \"one\"\nextends = \"python\"\ndebian = [\"git\", \"procps\"]\npython = [\"Pandas==2.3.3\", \"rich\"]\nvcpus = 2\n\
         files = [{source = \"data\", target = \"/srv/data\"}]\nenv = {A = \"1\"}\n",
    )
    .unwrap();
    std::fs::write(
        dir.path().join("two.toml"),
        "name = \"two\"\nextends = \"one.toml\"\nmemory = \"3G\"\nenv = {A = \"2\"}\n",
    )
    .unwrap();
    let two = Recipe::load(dir.path().join("two.toml").to_str().unwrap()).unwrap();
    let python = Recipe::builtin("python").unwrap();
    assert_eq!(
        (two.name.as_str(), two.vcpus, two.memory_bytes),
        ("two", 2, 3072 * MIB)
    );
    assert_eq!(
        two.debian.iter().filter(|name| *name == "procps").count(),
        1
    );
    assert_eq!(two.python.len(), python.python.len() + 1);
    assert!(two.python.contains(&"Pandas==2.3.3".to_owned()));
    assert_eq!(two.files[0].source, dir.path().join("data"));
    assert_eq!(two.env["A"], "2");
    assert_eq!(two.warm, python.warm);
}

#[test]
fn a_recipe_cannot_extend_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("loop.toml");
    std::fs::write(&path, "name = \"loop\"\nextends = \"loop.toml\"\n").unwrap();
    let error = Recipe::load(path.to_str().unwrap()).unwrap_err();
    assert!(error.to_string().contains("extend one another"), "{error}");
}

#[test]
fn an_unknown_recipe_says_what_there_is() {
    let message = Recipe::load("perl").unwrap_err().to_string();
    assert!(
        message.contains("`perl`") && message.contains("base, python, polyglot"),
        "{message}"
    );
    assert!(matches!(
        Recipe::load("/no/such.toml"),
        Err(RecipeError::Read { .. })
    ));
}

#[test]
fn derived_recipes_are_named_after_their_packages() {
    let python = Recipe::builtin("python").unwrap();
    let with = python
        .with_python(&["polars==1.35.2", "Scikit_Learn[all]>=1", "pandas==2.3.3"])
        .unwrap();
    assert_eq!(with.name, "python+polars+scikit-learn+pandas");
    assert_eq!(with.python.len(), python.python.len() + 2);
    assert_eq!(with.with_python(&["polars==1.36"]).unwrap().name, with.name);
    python.with_python(&["--index-url=x"]).unwrap_err();
    let many: Vec<String> = (0..40).map(|n| format!("package-number-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(python.with_python(&many).unwrap().name.len() <= RECIPE_NAME_BYTES);
}
