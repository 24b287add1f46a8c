//! The root of the machine: a read-only disk, a writable layer in memory, and the switch to it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};

use super::{BootError, attach};
use crate::limits;
use crate::log;
use crate::options::MachineOptions;

const LOWER: &str = "/.lower";
const UPPER: &str = "/.upper";
const MERGED: &str = "/.root";

/// The formats that images come in.
const FORMATS: [&str; 2] = ["erofs", "squashfs"];

/// Where the runner's package lies after the switch.
const RUNNER: &str = "/run/vmrepl/runner";

/// Where the program of the exec port lies after the switch.
const EXEC: &str = "/run/vmrepl/exec";

/// What the initramfs has brought, in its place in the new root.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) runner: PathBuf,
    pub(super) grpc: Option<PathBuf>,
}

/// Makes the disk of `options` the root, and carries over into it what the agent needs.
pub(super) fn switch(options: &MachineOptions) -> Result<Carried, BootError> {
    wait_for_disk(&options.root)?;
    merge(options)?;
    let in_root = |path: &str| format!("{MERGED}{path}");
    for path in ["/proc", "/sys", "/dev"] {
        let target = in_root(path);
        fs::create_dir_all(&target).map_err(|error| BootError::new(&target, error))?;
        mount_move(path, &target)
            .map_err(|error| BootError::new(format!("move {path} to {target}"), error))?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    attach(
        "tmpfs",
        &in_root("/run"),
        "tmpfs",
        flags,
        "mode=0755,size=25%",
    )?;
    copy_tree(Path::new("/runner"), Path::new(&in_root(RUNNER)))
        .map_err(|error| BootError::new(format!("copy /runner to {RUNNER}"), error))?;
    let grpc = Path::new("/exec").exists().then(|| PathBuf::from(EXEC));
    if grpc.is_some() {
        fs::copy("/exec", in_root(EXEC))
            .map_err(|error| BootError::new(format!("copy /exec to {EXEC}"), error))?;
    }
    empty_initramfs();
    enter()?;
    Ok(Carried {
        runner: PathBuf::from(RUNNER),
        grpc,
    })
}

/// The driver finds the disk while its module loads; a slow one is given some time.
fn wait_for_disk(disk: &Path) -> Result<(), BootError> {
    let deadline = Instant::now() + limits::ROOT_DISK;
    loop {
        let error = match fs::metadata(disk) {
            Ok(metadata) if metadata.file_type().is_block_device() => return Ok(()),
            Ok(_) => io::Error::other("not a block device"),
            Err(error) => error,
        };
        if Instant::now() > deadline {
            return Err(BootError::new(
                format!("wait for {}", disk.display()),
                error,
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn merge(options: &MachineOptions) -> Result<(), BootError> {
    let step = |what: &str| format!("{what} for the root");
    for path in [LOWER, MERGED] {
        fs::create_dir(path).map_err(|error| BootError::new(step(path), error))?;
    }
    mount_disk(options)?;
    // No NODEV, NOSUID: the layer is part of the root, where both are at home.
    let size = format!("mode=0755,size={}", options.overlay_size);
    attach("tmpfs", UPPER, "tmpfs", MountFlags::empty(), &size)?;
    let (upper, work) = (format!("{UPPER}/upper"), format!("{UPPER}/work"));
    for path in [&upper, &work] {
        fs::create_dir(path).map_err(|error| BootError::new(step(path), error))?;
    }
    let layers = format!("lowerdir={LOWER},upperdir={upper},workdir={work}");
    attach("overlay", MERGED, "overlay", MountFlags::empty(), &layers)?;
    // The overlay holds its layers; under their own names nobody should find them.
    for path in [LOWER, UPPER] {
        unmount(path, UnmountFlags::DETACH)
            .map_err(|error| BootError::new(format!("detach {path}"), error))?;
    }
    Ok(())
}

fn mount_disk(options: &MachineOptions) -> Result<(), BootError> {
    let disk = &options.root;
    let formats: Vec<&str> = match &options.root_format {
        Some(format) => vec![format],
        None => FORMATS.to_vec(),
    };
    let mut failed = io::Error::from(io::ErrorKind::InvalidInput);
    for format in &formats {
        match mount(disk, LOWER, *format, MountFlags::RDONLY, c"") {
            Ok(()) => return Ok(()),
            Err(error) => failed = error.into(),
        }
    }
    let step = format!("mount {} as {}", disk.display(), formats.join(" or "));
    Err(BootError::new(step, failed))
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Everything in the initramfs costs guest memory until it is removed. Other file systems, the new
/// root first of all, are not entered.
fn empty_initramfs() {
    let Ok(root) = fs::metadata("/") else { return };
    if let Err(error) = remove_below(Path::new("/"), root.dev()) {
        log::note(format_args!("initramfs not emptied: {error}"));
    }
}

fn remove_below(folder: &Path, device: u64) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            remove_below(&path, device)?;
            // The mount point of the new root stays; it is busy.
            if path != Path::new(MERGED) {
                fs::remove_dir(&path)?;
            }
        } else {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The initramfs cannot be a pivot's old root, so the new root is moved above it.
fn enter() -> Result<(), BootError> {
    let failed = |error| BootError::new("enter the new root", io::Error::from(error));
    rustix::process::chdir(MERGED).map_err(failed)?;
    mount_move(".", "/").map_err(failed)?;
    rustix::process::chroot(".").map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)
}
