//! What programs expect to find: mounts, files, and an agent that nothing in the guest can kill.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use rustix::mount::MountFlags;
use rustix::system::{RebootCommand, reboot, sethostname};

use super::{BootError, HOME, USER_ID, attach};
use crate::log;

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
    attach(
        "cgroup2",
        "/sys/fs/cgroup",
        "cgroup2",
        plain | MountFlags::NOEXEC,
        "",
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
    let user = format!("user:x:{USER_ID}:{USER_ID}::{HOME}:/bin/sh");
    tell("/etc/group", add_account("/etc/group", "root:x:0:", &group));
    tell(
        "/etc/passwd",
        add_account("/etc/passwd", "root:x:0:0:root:/root:/bin/sh", &user),
    );
    tell(HOME, make_home());
    name_host(hostname.unwrap_or("vmrepl"));
}

/// Gives the machine a name: in Linux, and in the files that resolve it without a network.
pub(crate) fn name_host(name: &str) {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(valid) {
        log::warn(format_args!("hostname {name:?} is not valid"));
        return;
    }
    tell(
        "hostname",
        sethostname(name.as_bytes()).map_err(io::Error::from),
    );
    tell(
        "/etc/hostname",
        fs::write("/etc/hostname", format!("{name}\n")),
    );
    let hosts = format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost\n");
    tell("/etc/hosts", fs::write("/etc/hosts", hosts));
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
