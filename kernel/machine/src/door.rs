//! The machine's Unix socket where a worker serves the ports: clients say `CONNECT <port>` here, and their
//! sockets are handed to the worker.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use vmrepl_vmm::Opener;

use crate::listen::Door;

const STACK_BYTES: usize = 64 << 10;
const TRY_AGAIN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// A thread at the door. Dropped, it goes, and whoever still waits is turned away.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    leave: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Doorkeeper {
    /// Listens at `path`, mode 0600.
    pub(crate) fn start(path: &Path, opener: Opener) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let leave = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let told = Arc::clone(&leave);
        let mut door = Door::default();
        door.listener = Some(listener);
        let thread = std::thread::Builder::new()
            .name("vmrepl-door".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || keep(door, &opener, &told))?;
        Ok(Self {
            leave,
            thread: Some(thread),
        })
    }
}

impl Drop for Doorkeeper {
    fn drop(&mut self) {
        rustix::io::write(&*self.leave, &1_u64.to_ne_bytes()).ok();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn keep(mut door: Door, opener: &Opener, leave: &OwnedFd) {
    loop {
        let mut fds = vec![PollFd::new(leave, PollFlags::IN)];
        let clients_from = if let Some(listener) = door.open_listener() {
            fds.push(PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN));
            2
        } else {
            1
        };
        for client in &door.waiting {
            fds.push(PollFd::new(&client.socket, PollFlags::IN));
        }
        // Closed for want of descriptors, the door tries again: streams end elsewhere, and nobody tells.
        let patience = (clients_from == 1).then_some(TRY_AGAIN);
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if !ready.contains(&true) {
            door.reopen();
            continue;
        }
        if ready[0] {
            return;
        }
        // From the last to the first: clients leave the door by index.
        for at in (clients_from..ready.len()).rev().filter(|at| ready[*at]) {
            if let Some(wish) = door.listen_to(at - clients_from)
                && opener
                    .open(wish.port, &wish.socket, true, wish.early)
                    .is_err()
            {
                return;
            }
        }
        if clients_from == 2 && ready[1] {
            door.accept();
        }
    }
}
