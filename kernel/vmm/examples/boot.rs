//! Boots a Linux on this host's KVM and shows its console and what its agent says on port 9:
//! `boot VMLINUX INITRAMFS ROOT MEMORY_FILE [SECONDS]`.
#![expect(
    clippy::print_stderr,
    reason = "the console has stdout, all else goes to stderr"
)]

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmrepl_vmm::{BootFiles, Greeting, Machine, Parts};

const MEMORY_BYTES: u64 = 512 << 20;
const CONTROL_PORT: u32 = 9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [vmlinux, initramfs, root, memory, rest @ ..] = arguments.as_slice() else {
        return Err("usage: boot VMLINUX INITRAMFS ROOT MEMORY_FILE [SECONDS]".into());
    };
    let seconds = rest.first().map_or(Ok(20), |text| text.parse())?;
    let memory_file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(memory)?;
    memory_file.set_len(MEMORY_BYTES)?;
    let parts = Parts {
        memory: memory_file,
        root: File::open(root)?,
        console: File::from(std::io::stdout().as_fd().try_clone_to_owned()?),
    };
    let files = BootFiles {
        vmlinux: &File::open(vmlinux)?,
        initramfs: &File::open(initramfs)?,
        command_line: "console=ttyS0 reboot=t panic=-1 mitigations=off random.trust_cpu=on",
    };
    let mut machine = Machine::boot(&Kvm::new()?, MEMORY_BYTES, 1, parts, &files)?;
    let began = Instant::now();
    machine.run()?;
    let (ours, theirs) = UnixStream::pair()?;
    machine.open(CONTROL_PORT, theirs, Greeting::default());
    std::thread::spawn(move || listen(ours));
    let tenth = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    while machine.end().is_none() && began.elapsed() < Duration::from_secs(seconds) {
        let mut fds = [PollFd::from_borrowed_fd(machine.sockets(), PollFlags::IN)];
        if poll(&mut fds, Some(&tenth))? > 0 {
            machine.serve_sockets();
        }
    }
    eprintln!("after {:?}: {:?}", began.elapsed(), machine.end());
    Ok(())
}

fn listen(mut stream: UnixStream) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        eprint!("port 9: {}", String::from_utf8_lossy(&bytes[..count]));
    }
}
