//! What stands between a stranger's program and the guest.
//!
//! Order matters, and is kept by [`launch`](crate::launch::launch):
//! 1. The worker is in a mount namespace of its own, where the box is: nobody else sees it, and it goes with the worker.
//! 2. The new process, still with the agent's rights, leaves the namespaces that it was born in, and makes the system read-only.
//! 3. It becomes a user whose nothing belongs to, without a capability that it could have again.
//! 4. It gives up the calls that nothing but an escape needs. The filter comes last, for what comes before needs them.
//! 5. It splits off the program, and stays as the first process of its namespace: when it ends, Linux ends all others there.
//!
//! Each layer is told by the process that has put it on, behind the call that did it.
#![expect(
    unsafe_code,
    reason = "namespaces, mount attributes and a fork before exec have no safe wrapper"
)]

mod filter;
mod view;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use seccompiler::BpfProgram;

use crate::spawn::{Identity, leave};

/// Where a program's files are. Boot makes the folder.
pub(crate) const BOX: &CStr = c"/box";

/// Whom programs run as.
pub(crate) const IDENTITY: Identity = Identity::User {
    user: 1001,
    group: 1001,
};

/// What is put on between agent and program.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// The worker's own namespace of processes, to come back to.
    processes: OwnedFd,
    filters: Vec<BpfProgram>,
}

/// Layers by the letter by which they are told.
const LAYERS: [(u8, &str); 10] = [
    (b'P', "pid_namespace"),
    (b'M', "mount_namespace"),
    (b'N', "network_namespace"),
    (b'I', "ipc_namespace"),
    (b'H', "uts_namespace"),
    (b'R', "read_only_system"),
    (b'U', "unprivileged_user"),
    (b'C', "no_capabilities"),
    (b'S', "seccomp"),
    (b'G', "cgroup"),
];

/// Names the layers that a new process has told.
pub(crate) fn layers(told: &[u8]) -> Vec<String> {
    let put_on = LAYERS.iter().filter(|(letter, _)| told.contains(letter));
    put_on.map(|(_, name)| (*name).to_owned()).collect()
}

impl Sandbox {
    /// Takes this process, a worker, into a mount namespace of its own.
    pub(crate) fn new() -> io::Result<Self> {
        let processes = open(
            c"/proc/self/ns/pid",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        unshare(libc::CLONE_NEWNS)?;
        view::make_private()?;
        view::devices()?;
        let filters = filter::programs().map_err(io::Error::other)?;
        Ok(Self { processes, filters })
    }

    /// Makes an empty box that holds so much.
    pub(crate) fn open_box(&self, size_bytes: u64, owner: Identity) -> io::Result<()> {
        view::mount_box(size_bytes, owner)
    }

    /// Throws the box away with all that is in it.
    pub(crate) fn close_box(&self) {
        view::unmount_box();
    }

    /// Has the next process that is started be the first of a new namespace.
    pub(crate) fn begin(&self) -> io::Result<()> {
        // One can only leave the namespace that one is in, not one that was left and not entered.
        // SAFETY: the descriptor is of a namespace, and the call reads nothing else.
        let result = unsafe { libc::setns(self.processes.as_raw_fd(), libc::CLONE_NEWPID) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        unshare(libc::CLONE_NEWPID)
    }

    /// In the new process, with the agent's rights: out of the namespaces, and to a read-only view.
    pub(crate) fn isolate(&self, told: BorrowedFd<'_>) -> io::Result<()> {
        if rustix::process::getpid().is_init() {
            tell(told, b'P')?;
        }
        for (flag, letter) in [
            (libc::CLONE_NEWNS, b'M'),
            (libc::CLONE_NEWNET, b'N'),
            (libc::CLONE_NEWIPC, b'I'),
            (libc::CLONE_NEWUTS, b'H'),
        ] {
            unshare(flag)?;
            tell(told, letter)?;
        }
        unshare(libc::CLONE_NEWCGROUP)?;
        rustix::system::sethostname(b"sandbox")?;
        view::change()?;
        tell(told, b'R')
    }

    /// In the new process, as its user: gives calls up, and goes on in a child of which this one is the keeper.
    pub(crate) fn seal(&self, told: BorrowedFd<'_>) -> io::Result<()> {
        if rustix::process::getuid().as_raw() != 0 {
            tell(told, b'U')?;
        }
        let capabilities = rustix::thread::capabilities(None)?;
        if capabilities.permitted.is_empty() && capabilities.inheritable.is_empty() {
            tell(told, b'C')?;
        }
        for filter in &self.filters {
            seccompiler::apply_filter(filter).map_err(|_| Errno::PERM)?;
        }
        tell(told, b'S')?;
        // SAFETY: this process has one thread, so the child finds every lock free.
        match unsafe { libc::fork() } {
            0 => Ok(()),
            child if child > 0 => keep(child, told.as_raw_fd()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

pub(crate) fn tell(told: BorrowedFd<'_>, letter: u8) -> io::Result<()> {
    rustix::io::write(told, &[letter])?;
    Ok(())
}

/// The first process of the namespace: waits for all others, and ends as the program does. A signal cannot be passed on by
/// the first process, so it is told.
fn keep(program: libc::pid_t, told: RawFd) -> ! {
    let told_number = told.cast_unsigned();
    for (first, last) in [
        (0, told_number.wrapping_sub(1)),
        (told_number + 1, u32::MAX),
    ] {
        // SAFETY: this process uses no descriptor but `told` from here on, and ends by `_exit`.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
    loop {
        let mut status = 0;
        // SAFETY: `status` is writable.
        let ended = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if ended == program {
            if libc::WIFSIGNALED(status) {
                let signal = libc::WTERMSIG(status);
                // SAFETY: the descriptor was kept open above.
                let told = unsafe { BorrowedFd::borrow_raw(told) };
                let word = [b's', u8::try_from(signal).unwrap_or(0)];
                rustix::io::write(told, &word).ok();
                leave(128 + signal);
            }
            leave(libc::WEXITSTATUS(status));
        }
        if ended < 0 {
            leave(126);
        }
    }
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the call takes flags, and changes what this process sees, not its memory.
    match unsafe { libc::unshare(flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
