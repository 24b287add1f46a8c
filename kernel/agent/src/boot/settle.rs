//! What programs expect to find: mounts, files, and an agent that nothing in the guest can kill.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use rustix::mount::MountFlags;
use rustix::system::{RebootCommand, reboot};

use super::{BootError, HOME, USER_ID, attach};
use crate::log;
use crate::resume::set_hostname;

pub(super) fn late_mounts() -> Result<(), BootError> {
    let (plain, dev) = (MountFlags::NOSUID | MountFlags::NODEV, MountFlags::NOSUID);
    attach(
        "devpts",
        "/dev/pts",
        "devpts",
        dev | MountFlags::NOEXEC,
        "gid=5,mode=620,ptmxmode=666",
    )?;
    attach("tmpfs", "/dev/shm", "tmpfs", plain, "mode=1777")?;
    attach("tmpfs", "/tmp", "tmpfs", plain, "mode=1777")?;
    // Each program moves into a group of its own: without the option Linux waits for a grace period of all processors
    // each time.
    attach(
        "cgroup2",
        "/sys/fs/cgroup",
        "cgroup2",
        plain | MountFlags::NOEXEC,
        "favordynmods",
    )
}

/// Files that a minimal root may lack. None is needed by the agent itself, so a failure is told and
/// passed over.
pub(super) fn files(hostname: Option<&str>) {
    let links = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ];
    for (original, link) in links {
        if !Path::new(link).exists() {
            tell(link, symlink(original, link));
        }
    }
    tell("/etc", fs::create_dir_all("/etc"));
    let group = format!("user:x:{USER_ID}:");
    let user = format!("user:x:{USER_ID}:{USER_ID}::{HOME}:{}", shell());
    tell("/etc/group", add_account("/etc/group", "root:x:0:", &group));
    tell(
        "/etc/passwd",
        add_account("/etc/passwd", "root:x:0:0:root:/root:/bin/sh", &user),
    );
    // For programs of strangers; see `sandbox`.
    tell("/box", fs::create_dir_all("/box"));
    tell(HOME, make_home());
    name_host(hostname.unwrap_or("vmrepl"));
}

/// The shell of the ordinary user: the more comfortable of those that a root may have.
pub(crate) fn shell() -> &'static str {
    let known = ["/bin/bash", "/bin/sh"];
    let found = known.into_iter().find(|shell| Path::new(shell).exists());
    found.unwrap_or("/bin/sh")
}

/// Gives the machine its first name.
fn name_host(name: &str) {
    tell("hostname", set_hostname(name));
    // Always what Linux says, whatever a resume calls the machine.
    let (original, link) = ("/proc/sys/kernel/hostname", "/etc/hostname");
    drop(fs::remove_file(link));
    tell(link, symlink(original, link));
}

/// Appends `line` unless its name or its number is known already.
fn add_account(path: &str, root: &str, line: &str) -> io::Result<()> {
    let mut text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("{root}\n"),
        Err(error) => return Err(error),
    };
    let number = USER_ID.to_string();
    let known = text.lines().any(|line| {
        let mut fields = line.split(':');
        fields.next() == Some("user") || fields.nth(1) == Some(&number)
    });
    if known {
        return Ok(());
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
    text.push('\n');
    fs::write(path, text)
}

fn make_home() -> io::Result<()> {
    if !Path::new(HOME).exists() {
        fs::create_dir_all(HOME)?;
        fs::set_permissions(HOME, fs::Permissions::from_mode(0o755))?;
    }
    chown(HOME, Some(USER_ID), Some(USER_ID))
}

/// Out of memory, Linux must never choose the agent: its end is the machine's.
pub(super) fn protect_agent() {
    tell(
        "oom_score_adj",
        fs::write("/proc/self/oom_score_adj", "-1000"),
    );
}

/// Ends the machine. Returns only when Linux refuses.
pub(crate) fn power_off() {
    // A machine without a power switch ends by its restart, which its engine takes as the end.
    for command in [RebootCommand::PowerOff, RebootCommand::Restart] {
        if let Err(error) = reboot(command) {
            log::warn(format_args!("{command:?}: {error}"));
        }
    }
}

fn tell(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        log::warn(format_args!("{what}: {error}"));
    }
}
