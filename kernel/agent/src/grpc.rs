//! Port 2222: exec over gRPC. What is spoken there is another program's business, `vmrepl-exec`, which starts nothing itself:
//! it asks here for a connection of the files port for each call.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};
use rustix::process::{Pid, WaitOptions, wait};

use crate::exec::{Defaults, kill_group_of, sweep_groups};
use crate::spawn::{Descent, Forked, fork, spawn, work};
use crate::{files, limits, log};

/// Serves one connection, whose descriptor blocks. Returns the process's exit code.
pub(crate) fn serve(socket: OwnedFd, program: &Path, defaults: &Defaults) -> i32 {
    match converse(socket, program, defaults) {
        Ok(()) => 0,
        Err(error) => {
            log::warn(format_args!("port 2222: {error}"));
            1
        }
    }
}

fn converse(socket: OwnedFd, program: &Path, defaults: &Defaults) -> io::Result<()> {
    let (calls, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut command = Command::new(program);
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
        .arg("--connection")
        .arg(format!("fd:{}", socket.as_raw_fd()))
        .arg("--core")
        .arg(format!("fd:{}", theirs.as_raw_fd()));
    let descent = Descent {
        identity: defaults.identity,
        cgroup: None,
    };
    spawn(command, &[socket.as_fd(), theirs.as_fd()], descent)?;
    drop((socket, theirs));
    let mut serving = Vec::new();
    loop {
        let call = next_call(&calls)?;
        reap(&mut serving, defaults);
        match call {
            None => return Ok(()),
            // The other side counts, too: this is for one that does not.
            Some(_) if serving.len() >= limits::EXEC_CALLS => {}
            Some(call) => match fork(None, &call)? {
                Forked::Agent(pid) => serving.push(pid),
                Forked::Worker => work(|| files::serve(call, defaults)),
            },
        }
    }
}

/// The connection of the next call; none when no more come.
fn next_call(calls: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [io::IoSliceMut::new(&mut byte)];
        match recvmsg(calls, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) if message.bytes == 0 => return Ok(None),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let found = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        // A byte that brings nothing asks for nothing.
        if let Some(call) = found {
            return Ok(Some(call));
        }
    }
}

fn reap(serving: &mut Vec<Pid>, defaults: &Defaults) {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        serving.retain(|serving| *serving != pid);
        if let Some(groups) = &defaults.groups {
            if !status.exited() {
                kill_group_of(groups, pid);
            }
            sweep_groups(groups);
        }
    }
}
