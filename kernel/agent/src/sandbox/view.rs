//! What a program in the sandbox sees of the file system: the guest's own, read-only; of its devices a handful; of its processes,
//! settings and homes nothing.

use std::ffi::CString;
use std::fs;
use std::io;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat, symlinkat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

use super::BOX;
use crate::spawn::Identity;

/// Where the devices lie before they become the program's `/dev`.
const DEVICES: &str = "/run/vmrepl/dev";

/// Character devices by name and number: nothing that reaches another process or the host.
const NODES: [(&str, u32, u32); 5] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
];

/// Parts of the guest that are empty in the sandbox.
const HIDDEN: [&std::ffi::CStr; 6] = [c"/run", c"/sys", c"/home", c"/root", c"/var", c"/mnt"];

/// `struct mount_attr` of Linux; see `mount_setattr(2)`.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const READ_ONLY: u64 = 0x1;
const NO_SUID: u64 = 0x2;

/// What is mounted from here on is nobody else's.
pub(super) fn make_private() -> io::Result<()> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(mount_change(c"/", flags)?)
}

/// Makes the devices.
pub(super) fn devices() -> io::Result<()> {
    fs::create_dir_all(DEVICES)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount(c"tmpfs", DEVICES, c"tmpfs", flags, c"mode=0755,size=64k")?;
    for (name, major, minor) in NODES {
        let path = format!("{DEVICES}/{name}");
        let mode = Mode::from_raw_mode(0o666);
        mknodat(
            CWD,
            path.as_str(),
            FileType::CharacterDevice,
            mode,
            makedev(major, minor),
        )?;
        // The mask of whoever makes it has no say.
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlinkat(target, CWD, format!("{DEVICES}/{name}").as_str())?;
    }
    Ok(())
}

/// Mounts an empty box that belongs to the program's user.
pub(super) fn mount_box(size_bytes: u64, owner: Identity) -> io::Result<()> {
    let (user, group) = match owner {
        Identity::User { user, group } => (user, group),
        Identity::Root => (0, 0),
        Identity::Same => return Err(io::ErrorKind::Unsupported.into()),
    };
    let data = format!("mode=0755,uid={user},gid={group},size={size_bytes},nr_inodes=4096");
    let data = CString::new(data)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount(c"tmpfs", BOX, c"tmpfs", flags, data.as_c_str())?;
    fs::create_dir("/box/tmp")?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs::set_permissions("/box/tmp", mode)
}

pub(super) fn unmount_box() {
    unmount(BOX, UnmountFlags::DETACH).ok();
}

/// Makes this process's view that of a program. System calls only: it runs between fork and exec.
pub(super) fn change() -> io::Result<()> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    make_private()?;
    mount_bind(c"/run/vmrepl/dev", c"/dev")?;
    mount_bind(c"/box/tmp", c"/tmp")?;
    // A view of its own processes alone, without the rest of what is told there.
    mount(
        c"proc",
        c"/proc",
        c"proc",
        plain,
        c"hidepid=invisible,subset=pid",
    )?;
    for path in HIDDEN {
        mount(c"tmpfs", path, c"tmpfs", plain, c"mode=0755")?;
    }
    set_attributes(c"/", READ_ONLY | NO_SUID, 0, true)?;
    for path in [BOX, c"/tmp"] {
        set_attributes(path, 0, READ_ONLY, false)?;
    }
    Ok(())
}

fn set_attributes(path: &std::ffi::CStr, set: u64, clear: u64, and_below: bool) -> io::Result<()> {
    let attributes = Attributes {
        set,
        clear,
        propagation: 0,
        user_namespace: 0,
    };
    let flags = if and_below { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path ends with a zero byte, and the attributes are of the size that is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
