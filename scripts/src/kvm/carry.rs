//! What goes into the lane: the tree, the files and folders of the jobs, and the plan that the outer guest follows.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

const START: &str = include_str!("start.sh");

/// One command, with the first word found as a shell finds it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) folder: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) command: Vec<String>,
}

/// Jobs that share one boot.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) jobs: Vec<Job>,
    pub(crate) carried: Vec<Carried>,
    /// The jobs talk with the caller's terminal.
    pub(crate) has_terminal: bool,
}

/// A file or folder of the host and its place in the lane.
#[derive(Debug, Clone)]
pub(crate) struct Carried {
    host: PathBuf,
    guest: PathBuf,
}

impl Carried {
    pub(crate) fn new(host: &Path, guest: PathBuf) -> Result<Self> {
        let found = fs::canonicalize(host)
            .with_context(|| format!("{} cannot be carried", host.display()))?;
        if !guest.is_absolute() || guest.to_str().is_none() {
            bail!(
                "{} is no place in the lane: an absolute path is needed",
                guest.display()
            );
        }
        Ok(Self { host: found, guest })
    }

    /// Whether the lane has it at another place.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.guest != self.host
    }

    /// At the same place as on the host, by the name that the caller uses for it.
    pub(crate) fn same(host: &Path) -> Result<Self> {
        let guest = std::path::absolute(host)
            .with_context(|| format!("{} cannot be carried", host.display()))?;
        Self::new(host, guest)
    }
}

/// The tree that the jobs are about.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    /// What cargo builds into.
    target: PathBuf,
}

impl Tree {
    pub(crate) fn of(root: &Path) -> Result<Self> {
        let output = Command::new("cargo")
            .args([
                "metadata",
                "--format-version",
                "1",
                "--no-deps",
                "--offline",
            ])
            .current_dir(root)
            .stderr(Stdio::inherit())
            .output()
            .context("starting cargo")?;
        let metadata: Value =
            serde_json::from_slice(&output.stdout).context("reading cargo's metadata")?;
        let target = metadata["target_directory"]
            .as_str()
            .context("cargo metadata has no target_directory")?;
        Ok(Self {
            root: root.to_owned(),
            target: target.into(),
        })
    }

    /// What git knows or would add: no build's output, no history.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let output = Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(&self.root)
            .stderr(Stdio::inherit())
            .output()
            .context("starting git")?;
        if !output.status.success() {
            bail!("git ls-files: {}", output.status);
        }
        let text = String::from_utf8(output.stdout)
            .context("a file of the tree has a name that is no UTF-8")?;
        Ok(text.split_terminator('\0').map(PathBuf::from).collect())
    }
}

/// Makes the disks that carry the load, the plan's own first. `run` is this run's folder; `cache` keeps the disks of
/// folders until these change.
pub(crate) fn pack(tree: &Tree, load: &Load, cache: &Path, run: &Path) -> Result<Vec<PathBuf>> {
    let staging = run.join("plan");
    let repository = staging.join("repository");
    let files = staging.join("files");
    for folder in [&repository, &files] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    for file in tree.files()? {
        link(&tree.root.join(&file), &repository.join(&file))?;
    }
    let mut carry = vec![format!("place repository {}", quoted(&tree.root)?)];
    if let Ok(inside) = tree.target.strip_prefix(&tree.root) {
        // Something to mount on.
        fs::create_dir_all(repository.join(inside))
            .context("making a place for what cargo builds")?;
    }
    carry.push(format!("room {}", quoted(&tree.target)?));

    let mut disks = vec![run.join("plan.erofs")];
    let (folders, singles): (Vec<_>, Vec<_>) = load
        .carried
        .iter()
        .partition(|carried| carried.host.is_dir());
    for carried in folders {
        let letter = u8::try_from(disks.len())
            .ok()
            .and_then(|number| b"cdefghijklmnopqrstuvwxyz".get(usize::from(number)));
        let letter = letter.with_context(|| {
            format!(
                "no more than 23 folders can be carried, not {}",
                load.carried.len()
            )
        })?;
        carry.push(format!(
            "disk vd{} {}",
            char::from(*letter),
            quoted(&carried.guest)?
        ));
        disks.push(disk_of(&carried.host, cache)?);
    }
    for (number, carried) in singles.iter().enumerate() {
        match carried.guest.strip_prefix(&tree.root) {
            Ok(inside) if !carried.guest.starts_with(&tree.target) => {
                link(&carried.host, &repository.join(inside))?;
            }
            _ => {
                link(&carried.host, &files.join(number.to_string()))?;
                carry.push(format!("place files/{number} {}", quoted(&carried.guest)?));
            }
        }
    }

    let facts = std::env::current_exe().context("looking for this program")?;
    link(&facts, &staging.join("xtask"))?;
    fs::write(staging.join("start.sh"), START).context("writing the outer guest's script")?;
    fs::write(staging.join("plan.sh"), plan(&carry, load)?).context("writing the plan")?;
    mkfs(&staging, &disks[0])?;
    Ok(disks)
}

/// The plan as a shell script, in the words of `start.sh`.
fn plan(carry: &[String], load: &Load) -> Result<String> {
    let mut commands = vec!["run / -- /lane/xtask kvm-facts".to_owned()];
    for job in &load.jobs {
        let mut line = format!("run {}", quoted(&job.folder)?);
        for (name, value) in &job.environment {
            line += &format!(" {}", word(&format!("{name}={value}")));
        }
        line += " --";
        for part in &job.command {
            line += &format!(" {}", word(part));
        }
        commands.push(line);
    }
    let terminal = if load.has_terminal {
        terminal_size()?
    } else {
        String::new()
    };
    let body = |lines: &[String]| {
        lines
            .iter()
            .map(|line| format!("  {line}\n"))
            .collect::<String>()
    };
    Ok(format!(
        "terminal={}\ncarry() {{\n{}}}\ncommands() {{\n{}}}\n",
        word(&terminal),
        body(carry),
        body(&commands)
    ))
}

/// Rows and columns.
fn terminal_size() -> Result<String> {
    let output = Command::new("stty")
        .arg("size")
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .output()
        .context("starting stty")?;
    if !output.status.success() {
        bail!("a shell needs a terminal");
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A word that a shell takes as it is.
fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn quoted(path: &Path) -> Result<String> {
    Ok(word(path.to_str().with_context(|| {
        format!("{}: a path must be UTF-8", path.display())
    })?))
}

/// Another name for a file, or a copy where there can be none. What is gone since it was listed is left out.
fn link(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    let done = match fs::hard_link(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(_) if from.is_symlink() => {
            fs::read_link(from).and_then(|target| std::os::unix::fs::symlink(target, to))
        }
        Err(_) => fs::copy(from, to).map(drop),
        Ok(()) => Ok(()),
    };
    done.with_context(|| format!("carrying {}", from.display()))
}

/// The disk of a folder, made again only when a name, a size or a time in it has changed.
fn disk_of(folder: &Path, cache: &Path) -> Result<PathBuf> {
    let disks = cache.join("disks");
    fs::create_dir_all(&disks).with_context(|| format!("making {}", disks.display()))?;
    let mut stamp = blake3::Hasher::new();
    stamp_folder(folder, &mut stamp)?;
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..16].to_owned();
    let place = hash(folder.as_os_str().as_encoded_bytes());
    let disk = disks.join(format!(
        "{place}-{}.erofs",
        &stamp.finalize().to_hex()[..16]
    ));
    if disk.exists() {
        return Ok(disk);
    }
    eprintln!("kvm: packing {}", folder.display());
    let partial = disks.join(format!("{place}.partial-{}", std::process::id()));
    mkfs(folder, &partial)?;
    // What the folder was before; a lane that still uses it has it open.
    for old in fs::read_dir(&disks).context("reading the cached disks")? {
        let old = old.context("reading the cached disks")?;
        let name = old.file_name();
        if name.to_string_lossy().starts_with(&format!("{place}-")) {
            fs::remove_file(old.path()).context("removing an old disk")?;
        }
    }
    fs::rename(&partial, &disk).context("publishing a disk")?;
    Ok(disk)
}

fn stamp_folder(folder: &Path, stamp: &mut blake3::Hasher) -> Result<()> {
    let doing = || format!("reading {}", folder.display());
    let mut entries = fs::read_dir(folder)
        .with_context(doing)?
        .collect::<Result<Vec<_>, _>>()
        .with_context(doing)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let facts = entry.metadata().with_context(doing)?;
        let numbers = [
            u64::from(facts.mode()),
            facts.ino(),
            facts.size(),
            facts.mtime().cast_unsigned(),
            facts.mtime_nsec().cast_unsigned(),
        ];
        stamp.update(entry.path().as_os_str().as_encoded_bytes());
        for number in numbers {
            stamp.update(&number.to_le_bytes());
        }
        if facts.is_dir() {
            stamp_folder(&entry.path(), stamp)?;
        }
    }
    Ok(())
}

/// A file system that is written at the speed of a copy; all of it belongs to the lane's user.
fn mkfs(folder: &Path, disk: &Path) -> Result<()> {
    let output = Command::new("mkfs.erofs")
        .args(["--quiet", "--force-uid=1000", "--force-gid=1000", "-x-1"])
        .args([disk, folder])
        .stdin(Stdio::null())
        .output()
        .context("starting mkfs.erofs")?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "packing {}: {}",
        folder.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_keeps_every_word_whole() {
        let job = Job {
            folder: "/a b".into(),
            environment: vec![("X".to_owned(), "it's $HOME".to_owned())],
            command: vec!["/c".to_owned(), String::new(), "--".to_owned()],
        };
        let load = Load {
            jobs: vec![job],
            ..Load::default()
        };
        let text = plan(&["room '/t'".to_owned()], &load).unwrap();
        let line = "  run '/a b' 'X=it'\\''s $HOME' -- '/c' '' '--'\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("carry() {\n  room '/t'\n}\n"), "{text}");
    }
}
