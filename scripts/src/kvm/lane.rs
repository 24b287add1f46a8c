//! One run of the lane: QEMU with the outer guest's disks, its output to ours, its result to the caller.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::carry::{self, Load, Tree};
use super::options::Options;
use super::outer::Outer;

/// The processor is all that emulation offers, AMD's virtualisation with it, but five levels of page tables: these
/// would only make each nested walk longer.
const MACHINE: &[&str] = &[
    "-nodefaults",
    "-no-user-config",
    "-no-reboot",
    "-display",
    "none",
    "-M",
    "q35",
    "-accel",
    "tcg,thread=multi,tb-size=512",
    "-cpu",
    "max,-la57",
    "-m",
    "3072",
    "-device",
    "virtio-serial",
];
/// An oops ends the run: what comes after one means nothing.
const LINUX: &str = "console=ttyS0 quiet mitigations=off oops=panic panic=-1 random.trust_cpu=on";
/// The store writes memory files of 512 MiB with holes. Only what is written takes room here.
const SCRATCH_BYTES: u64 = 12 << 30;
const CONSOLE_LINES: usize = 40;

/// Boots the outer guest, runs the jobs in it, and returns the exit code of the first that failed.
pub(crate) fn run(root: &Path, load: &Load, options: &Options) -> Result<u8> {
    need(&[
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("mkfs.erofs", "erofs-utils"),
        ("setpriv", "util-linux"),
        ("git", "git"),
    ])?;
    let cache = cache()?;
    let outer = Outer::ready(&cache)?;
    let run = RunFolder::make(&cache)?;
    let mut disks = vec![outer.file("root.erofs")];
    let scratch = run.path.join("scratch.img");
    let carried = carry::pack(&Tree::of(root)?, load, &cache, &run.path)?;
    File::create(&scratch)
        .and_then(|file| file.set_len(SCRATCH_BYTES))
        .context("making the scratch disk")?;

    let mut qemu = qemu(&outer, &run.path);
    // One, unless asked for more: among several, an exit of a guest is now and then carried out twice, and the second
    // time saves the outer Linux's registers as the guest's. It dies of that within minutes ("corrupted stack end"),
    // under QEMU 7.2 as under 10.0.
    qemu.args(["-smp", &options.processors.to_string()]);
    disks.push(scratch.clone());
    disks.extend(carried);
    for (number, disk) in disks.iter().enumerate() {
        let disk_path = disk
            .to_str()
            .context("the cache's path must be UTF-8")?
            .replace(',', ",,");
        let rights = if *disk == scratch {
            "discard=unmap"
        } else {
            "readonly=on"
        };
        qemu.args([
            "-drive",
            &format!("if=none,id=disk{number},format=raw,cache=unsafe,{rights},file={disk_path}"),
        ]);
        qemu.args(["-device", &format!("virtio-blk-pci,drive=disk{number}")]);
    }
    let watched = if load.has_terminal {
        with_terminal(qemu)
    } else {
        with_output(qemu, options.deadline, scratch)
    };
    let ended = watched.and_then(|()| result(&run.path));
    if !matches!(ended, Ok(0)) && !load.has_terminal {
        let log = cache.join("console.log");
        if fs::copy(run.path.join("console"), &log).is_ok() {
            if ended.is_err() {
                show_end(&log);
            }
            eprintln!("kvm: what the outer Linux said: {}", log.display());
        }
    }
    ended
}

/// Says at once all that is missing on this host.
pub(crate) fn need(programs: &[(&str, &str)]) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .collect();
    let missing: Vec<&(&str, &str)> = programs
        .iter()
        .filter(|(program, _)| !folders.iter().any(|folder| folder.join(program).is_file()))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = |pick: fn(&(&str, &str)) -> String| {
        missing.iter().map(|both| pick(both)).collect::<Vec<_>>()
    };
    bail!(
        "not installed: {}; as root: apt-get install {}",
        names(|both| both.0.to_owned()).join(", "),
        names(|both| both.1.to_owned()).join(" ")
    );
}

/// Where the lane keeps what it has made, beside the other things that tests keep.
fn cache() -> Result<PathBuf> {
    let named = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let tests = named("VMREPL_TEST_CACHE")
        .or_else(|| Some(named("XDG_CACHE_HOME")?.join("vmrepl-test")))
        .or_else(|| Some(named("HOME")?.join(".cache/vmrepl-test")))
        .context("neither VMREPL_TEST_CACHE nor HOME says where the lane is kept")?;
    let cache = std::path::absolute(tests)
        .context("asking for the current folder")?
        .join("kvm-lane");
    fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    Ok(cache)
}

/// A folder of this run, locked as long as it lives. Those of runs that were killed are swept by the next.
struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    fn make(cache: &Path) -> Result<Self> {
        let runs = cache.join("runs");
        fs::create_dir_all(&runs).with_context(|| format!("making {}", runs.display()))?;
        // One at a time, or a folder could be swept before it is locked.
        let gate = File::create(cache.join("runs.lock")).context("locking the runs")?;
        gate.lock().context("locking the runs")?;
        for entry in fs::read_dir(&runs).context("reading the runs")? {
            let path = entry.context("reading the runs")?.path();
            let is_live = File::open(path.join("lock")).is_ok_and(|lock| lock.try_lock().is_err());
            if !is_live {
                fs::remove_dir_all(&path)
                    .with_context(|| format!("removing {}", path.display()))?;
            }
        }
        let path = runs.join(std::process::id().to_string());
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        let lock = File::create(path.join("lock")).context("locking this run")?;
        lock.lock().context("locking this run")?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("kvm: {} stays: {error}", self.path.display());
        }
    }
}

/// QEMU dies with this process, however that ends; on Ctrl-C the terminal tells both.
fn qemu(outer: &Outer, run: &Path) -> Command {
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(MACHINE)
        .arg("-kernel")
        .arg(outer.file("vmlinuz"))
        .arg("-initrd")
        .arg(outer.file("initrd.img"))
        .args(["-append", LINUX])
        .args([
            "-chardev",
            "file,id=console,path=console",
            "-serial",
            "chardev:console",
        ])
        .args([
            "-chardev",
            "file,id=result,path=result",
            "-device",
            "virtserialport,nr=1,chardev=result",
        ])
        .current_dir(run);
    qemu
}

/// QEMU's own stdin and stdout are the lane's terminal.
fn with_terminal(mut qemu: Command) -> Result<()> {
    qemu.args([
        "-chardev",
        "stdio,id=terminal,signal=off",
        "-device",
        "virtconsole,nr=0,chardev=terminal",
    ]);
    qemu.status().context("starting QEMU").map(drop)
}

/// The lane's stdout and stderr are QEMU's, and ours.
fn with_output(mut qemu: Command, deadline: Duration, scratch: PathBuf) -> Result<()> {
    for (number, name) in [(1, "out"), (2, "err")] {
        qemu.args([
            "-chardev",
            &format!("file,id={name},append=on,path=/dev/fd/{number}"),
        ]);
        qemu.args([
            "-device",
            &format!("virtserialport,nr={},chardev={name}", number + 1),
        ]);
    }
    // From this thread, which outlives it: the death that QEMU is told of is the thread's.
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting QEMU")?;
    let (ended, end) = channel();
    let readers = readers(&mut child, &ended, scratch);
    drop(ended);
    let is_late = end.recv_timeout(deadline).is_err();
    if is_late {
        child.kill().context("stopping QEMU")?;
    }
    child.wait().context("waiting for QEMU")?;
    for reader in readers {
        reader.join().ok();
    }
    if is_late {
        bail!(
            "stopped after {} minutes; --deadline MINUTES allows more",
            deadline.as_secs() / 60
        );
    }
    Ok(())
}

fn readers(child: &mut Child, ended: &Sender<()>, scratch: PathBuf) -> Vec<JoinHandle<()>> {
    let mut readers = Vec::new();
    let ended = ended.clone();
    if let Some(pipe) = child.stdout.take() {
        readers.push(std::thread::spawn(move || {
            copy(pipe, std::io::stdout(), || {});
            ended.send(()).ok();
        }));
    }
    if let Some(pipe) = child.stderr.take() {
        // Once the guest talks, QEMU has opened the disk; without a name it goes with QEMU, whoever is killed.
        let forget = move || drop(fs::remove_file(&scratch));
        readers.push(std::thread::spawn(move || {
            copy(pipe, std::io::stderr(), forget);
        }));
    }
    readers
}

/// Copies as it comes. A caller that no longer listens does not stop the lane.
fn copy(mut from: impl Read, mut to: impl Write, first: impl FnOnce()) {
    let mut first = Some(first);
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if let Some(first) = first.take() {
            first();
        }
        to.write_all(&buffer[..length])
            .and_then(|()| to.flush())
            .ok();
    }
}

/// Reads what the outer guest's script said last.
fn result(run: &Path) -> Result<u8> {
    let text = fs::read_to_string(run.join("result")).unwrap_or_default();
    match text.trim().split_once(' ') {
        Some(("ended", status)) => status
            .parse()
            .with_context(|| format!("the lane ended with {status:?}")),
        Some(("failed", why)) => bail!("the outer guest could not start: {why}"),
        _ => bail!("the outer guest ended without a result"),
    }
}

fn show_end(log: &Path) {
    let text = fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(CONSOLE_LINES)..] {
        eprintln!("  | {line}");
    }
}
