//! The step `debian`: mmdebstrap makes the guest's tree of Debian packages.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cache::Work;
use crate::error::{ImageError, at};
use crate::key::{Key, KeyBuilder};
use crate::progress::Cancel;
use crate::recipe::Recipe;
use crate::sources::Sources;
use crate::suite::Suite;
use crate::tool::{Tool, ToolError};
use crate::tree;

/// What of the packages' content no cell needs.
const EXCLUDED: [&str; 7] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/usr/share/bash-completion/*",
    "/var/cache/apt/*",
];

/// What resolves the machine's own name, which is another in each copy; and what states that the tree starts merged,
/// see [`SETUP`].
const ALWAYS: [&str; 2] = ["libnss-myhostname", "usr-is-merged"];

/// The tree starts with `/bin` and its like joined to `/usr`, and the package that would convert it (with a perl of
/// 50 MB) is not available; the pin's file is removed again.
const SETUP: &str = r#"mkdir -p "$1/usr/bin" "$1/usr/sbin" "$1/usr/lib" "$1/usr/lib64" "$1/etc/apt/preferences.d" &&
for d in bin sbin lib lib64; do ln -s "usr/$d" "$1/$d"; done &&
printf 'Package: usrmerge\nPin: release *\nPin-Priority: -1\n' > "$1/etc/apt/preferences.d/vmrepl""#;

/// What mmdebstrap says when a phase of its work starts, and what we call it. Unpacking the result is one more.
const PHASES: [(&str, &str); 7] = [
    ("running apt-get update", "reading the archive's lists"),
    ("downloading packages", "downloading"),
    ("extracting archives", "extracting"),
    (
        "installing essential packages",
        "setting up the essential packages",
    ),
    (
        "installing remaining packages",
        "setting up the other packages",
    ),
    ("cleaning package lists", "cleaning up"),
    ("creating tarball", "collecting the tree"),
];

/// How many units a progress display counts for this step.
pub(crate) const TOTAL: u64 = PHASES.len() as u64 + 1;

/// One package that an image holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The key of the tree. The archive's state is no part of it: without a pinned version, a package is whatever was
/// newest when the tree was made.
pub(crate) fn key(recipe: &Recipe) -> Key {
    let mut packages: Vec<&str> = recipe
        .debian
        .iter()
        .map(String::as_str)
        .chain(ALWAYS)
        .collect();
    packages.sort_unstable();
    let key = KeyBuilder::new("debian", 1)
        .text("suite", &recipe.suite)
        .list("packages", packages)
        .list("excluded", excluded(recipe));
    // A recipe without any has the key that it had before there were such commands.
    if recipe.setup.is_empty() {
        return key.finish();
    }
    key.list("setup", recipe.setup.iter().map(String::as_str))
        .finish()
}

/// What of the packages' content this image leaves out, as dpkg's patterns.
fn excluded(recipe: &Recipe) -> impl Iterator<Item = &str> {
    let own = recipe.exclude.iter().map(String::as_str);
    EXCLUDED.into_iter().chain(own)
}

/// Makes `tree/` and `packages.json`.
pub(crate) fn make(recipe: &Recipe, suite: Suite, work: &mut Work<'_>) -> Result<(), ImageError> {
    let sources = Sources::of_host(suite, work.cancel)?;
    let tar = work.staging.join("tree.tar");
    run_mmdebstrap(recipe, &sources, &tar, work)?;
    work.progress.advanced(TOTAL - 1, "unpacking the tree");
    let tree = work.staging.join("tree");
    std::fs::create_dir(&tree).map_err(at("making the folder", &tree))?;
    Tool::new("tar", "tar")
        .args([
            "--extract",
            "--preserve-permissions",
            "--no-same-owner",
            "--file",
        ])
        .arg(&tar)
        .arg("--directory")
        .arg(&tree)
        .args(["--exclude=./dev/*", "--exclude=./var/log/*"])
        .run(work.cancel)
        .map_err(ImageError::tool("unpacking the debian tree"))?;
    tree::remove_file(&tar)?;
    tree::tame(&tree)?;
    // Compiled with checks of time stamps, which the image does not keep; `bytecode` makes better ones.
    tree::remove_folders(&tree.join("usr"), "__pycache__")?;
    // These carry the builder's addresses and settings.
    for name in [
        "etc/apt/apt.conf.d/99mmdebstrap",
        "etc/apt/preferences.d/vmrepl",
        "etc/apt/sources.list",
        "etc/resolv.conf",
        "etc/hostname",
    ] {
        tree::remove_file(&tree.join(name))?;
    }
    let packages = packages(&tree.join("var/lib/dpkg/status"))?;
    let list = work.staging.join("packages.json");
    let json = serde_json::to_vec_pretty(&packages).map_err(std::io::Error::from);
    json.and_then(|json| std::fs::write(&list, json))
        .map_err(at("writing", &list))
}

/// A tar file, not a folder: as an ordinary user, mmdebstrap's folder would belong to users that only exist in its
/// namespace.
fn run_mmdebstrap(
    recipe: &Recipe,
    sources: &Sources,
    tar: &Path,
    work: &mut Work<'_>,
) -> Result<(), ImageError> {
    let is_root = rustix::process::geteuid().is_root();
    let doing = || format!("making a tree of {} Debian packages", recipe.suite);
    if !is_root {
        check_unshare().map_err(ImageError::tool(doing()))?;
    }
    let include: Vec<&str> = recipe
        .debian
        .iter()
        .map(String::as_str)
        .chain(ALWAYS)
        .collect();
    let mut tool = mmdebstrap(sources, work.cancel)
        .arg(if is_root {
            "--mode=root"
        } else {
            "--mode=unshare"
        })
        .args([
            "--format=tar",
            "--variant=essential",
            "--architectures=amd64",
        ])
        .arg(format!("--include={}", include.join(",")))
        .args(excluded(recipe).map(|path| format!("--dpkgopt=path-exclude={path}")))
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        // A sync for each file costs a minute on a busy disk; the whole result is synced once before it is published.
        .arg("--dpkgopt=force-unsafe-io")
        .arg(format!("--setup-hook={SETUP}"))
        .args(recipe.setup.iter().map(|command| in_tree(command)));
    if is_root {
        // Its working tree belongs where a dead builder's remains are swept. Users of a namespace could not enter here.
        tool = tool.env("TMPDIR", work.staging);
    }
    let tool = tool.arg(&recipe.suite).arg(tar);
    let tool = with_sources(tool, sources, work)?;
    let progress = &mut *work.progress;
    tool.run_lines(work.cancel, &mut |_, line| {
        let phase = (0..)
            .zip(PHASES)
            .find(|(_, (says, _))| line.starts_with(&format!("I: {says}")));
        if let Some((number, (_, note))) = phase {
            progress.advanced(number, note);
        }
    })
    .map_err(ImageError::tool(doing()))
}

/// mmdebstrap with the host's way to the archives.
///
/// As root it mounts `/proc` and more in its tree, and forgets them when it is killed. In a mount namespace of its own
/// they end with it; where there may be none, it cannot mount either.
pub(crate) fn mmdebstrap(sources: &Sources, cancel: &Cancel) -> Tool {
    const NAMESPACE: [&str; 4] = ["--mount", "--propagation", "private", "--"];
    let own_mounts = || Tool::new("unshare", "util-linux").args(NAMESPACE);
    let has_namespace = rustix::process::geteuid().is_root()
        && crate::host::is_installed("mmdebstrap")
        && own_mounts().arg("true").run(cancel).is_ok();
    let tool = if has_namespace {
        own_mounts().arg("mmdebstrap")
    } else {
        Tool::new("mmdebstrap", "mmdebstrap")
    };
    tool
        // The set-up of packages needs programs that an ordinary user's path may lack.
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .args(
            sources
                .options
                .iter()
                .map(|option| format!("--aptopt={option}")),
        )
}

/// Adds the host's sources as the last argument, on standard input; without any, mmdebstrap has its own.
pub(crate) fn with_sources(
    tool: Tool,
    sources: &Sources,
    work: &Work<'_>,
) -> Result<Tool, ImageError> {
    if sources.lines.is_empty() {
        return Ok(tool);
    }
    let path = work.staging.join("sources.list");
    let text = sources.lines.join("\n") + "\n";
    let file = File::create(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| File::open(&path))
        .map_err(at("writing", &path))?;
    tree::remove_file(&path)?;
    Ok(tool.arg("-").input(file))
}

/// Has mmdebstrap run a shell command inside of the tree, once all packages are set up. A command that fails ends the build.
fn in_tree(command: &str) -> String {
    let quoted = command.replace('\'', r"'\''");
    format!(r#"--customize-hook=chroot "$1" /bin/sh -euc '{quoted}'"#)
}

/// An ordinary user's mmdebstrap maps a range of users into its namespace with a set-user-id program.
fn check_unshare() -> Result<(), ToolError> {
    if crate::host::is_installed("newuidmap") {
        return Ok(());
    }
    Err(ToolError::Missing {
        name: "newuidmap".to_owned(),
        debian_package: "uidmap",
    })
}

/// Reads dpkg's list of what is installed.
fn packages(status: &Path) -> Result<Vec<Package>, ImageError> {
    let text = std::fs::read_to_string(status).map_err(at("reading", status))?;
    let mut packages: Vec<Package> = text
        .split("\n\n")
        .filter_map(|stanza| {
            let field = |name: &str| {
                let mut lines = stanza.lines();
                lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
            };
            field("Status").filter(|status| status.ends_with(" installed"))?;
            Some(Package {
                name: field("Package")?,
                version: field("Version")?,
            })
        })
        .collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_follows_suite_and_packages_and_nothing_else() {
        let base = Recipe::builtin("base").unwrap();
        let mut other = base.clone();
        other.debian.reverse();
        other.warm.clear();
        other.memory_bytes *= 2;
        other.python.push("rich".to_owned());
        assert_eq!(key(&base), key(&other));
        other.debian.push("git".to_owned());
        assert_ne!(key(&base), key(&other));
    }

    #[test]
    fn the_key_follows_what_is_left_out_and_what_is_run() {
        let base = Recipe::builtin("base").unwrap();
        let mut other = base.clone();
        other.exclude.push("/usr/x/*".to_owned());
        assert_ne!(key(&base), key(&other));
        let mut other = base.clone();
        other.setup.push("true".to_owned());
        assert_ne!(key(&base), key(&other));
    }

    #[test]
    fn a_command_reaches_the_shell_in_the_tree_as_it_is() {
        let command = r#"printf '%s' "a 'b' \$1""#;
        let hook = in_tree(command);
        let script = hook.strip_prefix("--customize-hook=").unwrap();
        let script = script.replacen("chroot \"$1\" /bin/sh", "printf %s", 1);
        let said = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&said.stdout),
            format!("-euc{command}")
        );
    }

    #[test]
    fn installed_packages_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let status = dir.path().join("status");
        std::fs::write(
            &status,
            "Package: zlib1g\nStatus: install ok installed\nVersion: 1:1.2\nDepends: libc6\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
             Package: bash\nStatus: install ok installed\nVersion: 5.2-2\n",
        )
        .unwrap();
        let list: Vec<String> = packages(&status)
            .unwrap()
            .into_iter()
            .map(|p| format!("{} {}", p.name, p.version))
            .collect();
        assert_eq!(list, ["bash 5.2-2", "zlib1g 1:1.2"]);
    }
}
