//! The jail from within. A filter holds for the thread that installs it and all that it starts, so each test
//! goes to jail in a thread of its own.
#![expect(unsafe_code, reason = "calls are tried that no library makes")]

use std::ffi::c_long;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::mm::{MapFlags, ProtFlags};

use super::{enter, enter_processor};

const PAGE: usize = 4096;

/// Runs `inside` in a thread behind the jail's door.
fn jailed(inside: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        enter().unwrap();
        inside();
    });
    thread.join().unwrap();
}

/// The error that Linux answers a call with, or 0.
fn call(number: c_long, arguments: [c_long; 6]) -> i32 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: every call that is tried here is refused before Linux looks at its arguments, or takes none
    // that are addresses, or gets addresses of live memory.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 {
        std::io::Error::last_os_error().raw_os_error().unwrap()
    } else {
        0
    }
}

fn path() -> c_long {
    c"/dev/null".as_ptr() as c_long
}

fn wide(value: impl Into<i64>) -> c_long {
    value.into()
}

/// Stands for the process id of somebody else, and for the address of a path.
const WHO: c_long = -1001;
const PATH: c_long = -1002;
const HERE: c_long = -100;
const STREAM: [c_long; 6] = [1, 1, 0, 0, 0, 0];
const CHILD: [c_long; 6] = [17, 0, 0, 0, 0, 0];

/// What a worker has no use for, with arguments that would do no harm if it were allowed.
const FORBIDDEN: &[(&str, c_long, [c_long; 6])] = &[
    ("open", libc::SYS_open, [PATH, 0, 0, 0, 0, 0]),
    ("openat", libc::SYS_openat, [HERE, PATH, 0, 0, 0, 0]),
    ("openat2", libc::SYS_openat2, [HERE, PATH, 0, 0, 0, 0]),
    ("creat", libc::SYS_creat, [PATH, 0o600, 0, 0, 0, 0]),
    ("statx", libc::SYS_statx, [HERE, PATH, 0, 0, 0, 0]),
    ("newfstatat", libc::SYS_newfstatat, [HERE, PATH, 0, 0, 0, 0]),
    ("stat", libc::SYS_stat, [PATH, 0, 0, 0, 0, 0]),
    ("access", libc::SYS_access, [PATH, 0, 0, 0, 0, 0]),
    ("readlink", libc::SYS_readlink, [PATH, 0, 0, 0, 0, 0]),
    ("unlinkat", libc::SYS_unlinkat, [HERE, 0, 0, 0, 0, 0]),
    ("getdents64", libc::SYS_getdents64, [0; 6]),
    ("chdir", libc::SYS_chdir, [PATH, 0, 0, 0, 0, 0]),
    ("socket", libc::SYS_socket, STREAM),
    ("socketpair", libc::SYS_socketpair, STREAM),
    ("connect", libc::SYS_connect, [0; 6]),
    ("bind", libc::SYS_bind, [0; 6]),
    ("listen", libc::SYS_listen, [0; 6]),
    ("accept", libc::SYS_accept, [0; 6]),
    ("accept4", libc::SYS_accept4, [0; 6]),
    ("setsockopt", libc::SYS_setsockopt, [0; 6]),
    ("execve", libc::SYS_execve, [PATH, 0, 0, 0, 0, 0]),
    ("execveat", libc::SYS_execveat, [HERE, PATH, 0, 0, 0, 0]),
    ("fork", libc::SYS_fork, [0; 6]),
    ("vfork", libc::SYS_vfork, [0; 6]),
    ("clone of a process", libc::SYS_clone, CHILD),
    ("kill", libc::SYS_kill, [WHO, 0, 0, 0, 0, 0]),
    ("tkill", libc::SYS_tkill, [WHO, 0, 0, 0, 0, 0]),
    ("tgkill", libc::SYS_tgkill, [WHO, WHO, 0, 0, 0, 0]),
    (
        "rt_sigqueueinfo",
        libc::SYS_rt_sigqueueinfo,
        [WHO, 0, 0, 0, 0, 0],
    ),
    ("pidfd_open", libc::SYS_pidfd_open, [WHO, 0, 0, 0, 0, 0]),
    ("ptrace", libc::SYS_ptrace, [0; 6]),
    (
        "process_vm_readv",
        libc::SYS_process_vm_readv,
        [WHO, 0, 0, 0, 0, 0],
    ),
    (
        "process_vm_writev",
        libc::SYS_process_vm_writev,
        [WHO, 0, 0, 0, 0, 0],
    ),
    ("process_madvise", libc::SYS_process_madvise, [0; 6]),
    ("kcmp", libc::SYS_kcmp, [0; 6]),
    ("prlimit64", libc::SYS_prlimit64, [WHO, 0, 0, 0, 0, 0]),
    ("setuid", libc::SYS_setuid, [0; 6]),
    ("setgid", libc::SYS_setgid, [0; 6]),
    ("capset", libc::SYS_capset, [0; 6]),
    ("mount", libc::SYS_mount, [0; 6]),
    ("umount2", libc::SYS_umount2, [0; 6]),
    ("pivot_root", libc::SYS_pivot_root, [0; 6]),
    ("chroot", libc::SYS_chroot, [PATH, 0, 0, 0, 0, 0]),
    ("unshare", libc::SYS_unshare, [0; 6]),
    ("setns", libc::SYS_setns, [0; 6]),
    ("bpf", libc::SYS_bpf, [-1, 0, 0, 0, 0, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, [0; 6]),
    (
        "io_uring_setup",
        libc::SYS_io_uring_setup,
        [1, 0, 0, 0, 0, 0],
    ),
    ("io_setup", libc::SYS_io_setup, [1, 0, 0, 0, 0, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, [0; 6]),
    (
        "memfd_create",
        libc::SYS_memfd_create,
        [PATH, 0, 0, 0, 0, 0],
    ),
    ("memfd_secret", libc::SYS_memfd_secret, [0; 6]),
    ("inotify_init1", libc::SYS_inotify_init1, [0; 6]),
    ("fanotify_init", libc::SYS_fanotify_init, [0; 6]),
    ("keyctl", libc::SYS_keyctl, [0; 6]),
    ("add_key", libc::SYS_add_key, [0; 6]),
    ("shmget", libc::SYS_shmget, [0; 6]),
    ("shmat", libc::SYS_shmat, [-1, 0, 0, 0, 0, 0]),
    ("pkey_mprotect", libc::SYS_pkey_mprotect, [0; 6]),
    ("remap_file_pages", libc::SYS_remap_file_pages, [0; 6]),
    (
        "personality",
        libc::SYS_personality,
        [0xffff_ffff, 0, 0, 0, 0, 0],
    ),
    ("arch_prctl", libc::SYS_arch_prctl, [0; 6]),
    ("modify_ldt", libc::SYS_modify_ldt, [0; 6]),
    ("init_module", libc::SYS_init_module, [0; 6]),
    ("reboot", libc::SYS_reboot, [0; 6]),
    ("syslog", libc::SYS_syslog, [0; 6]),
    ("sendmmsg", libc::SYS_sendmmsg, [0; 6]),
    ("dup2", libc::SYS_dup2, [0, 0, 0, 0, 0, 0]),
    ("splice", libc::SYS_splice, [0; 6]),
    ("setpriority", libc::SYS_setpriority, [0; 6]),
    (
        "sched_setaffinity",
        libc::SYS_sched_setaffinity,
        [WHO, 0, 0, 0, 0, 0],
    ),
    // Of what is allowed with other arguments.
    ("PR_SET_DUMPABLE", libc::SYS_prctl, [4, 1, 0, 0, 0, 0]),
    (
        "PR_SET_PTRACER",
        libc::SYS_prctl,
        [0x5961_6d61, -1, 0, 0, 0, 0],
    ),
    ("PR_SET_MM", libc::SYS_prctl, [35, 0, 0, 0, 0, 0]),
    ("TIOCSTI", libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0]),
    ("FIOASYNC", libc::SYS_ioctl, [0, 0x5452, 0, 0, 0, 0]),
    ("SIOCGIFCONF", libc::SYS_ioctl, [0, 0x8912, 0, 0, 0, 0]),
    ("UFFDIO_API", libc::SYS_ioctl, [0, 0xc018_aa3f, 0, 0, 0, 0]),
    ("F_SETOWN", libc::SYS_fcntl, [0, 8, WHO, 0, 0, 0]),
    ("F_SETSIG", libc::SYS_fcntl, [0, 10, 9, 0, 0, 0]),
    ("F_SETPIPE_SZ", libc::SYS_fcntl, [0, 1031, 0, 0, 0, 0]),
    ("F_ADD_SEALS", libc::SYS_fcntl, [0, 1033, 0, 0, 0, 0]),
    ("a strict filter", libc::SYS_seccomp, [0; 6]),
    (
        "a filter with a listener",
        libc::SYS_seccomp,
        [1, 8, 0, 0, 0, 0],
    ),
    // The x32 form of getpid(2), which is allowed.
    ("x32", 0x4000_0000 + libc::SYS_getpid, [0; 6]),
];

/// Names what is not refused.
fn allowed(stranger: u32) -> Vec<String> {
    let mut found = Vec::new();
    for (name, number, arguments) in FORBIDDEN {
        let arguments = arguments.map(|argument| match argument {
            WHO => stranger.into(),
            PATH => path(),
            other => other,
        });
        let error = call(*number, arguments);
        if error != libc::EPERM {
            found.push(format!("{name}: error {error}"));
        }
    }
    found
}

fn map(protection: libc::c_int) -> i32 {
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let arguments = [0, wide(4096), wide(protection), wide(anonymous), -1, 0];
    call(libc::SYS_mmap, arguments)
}

#[test]
fn what_a_worker_has_no_use_for_is_refused() {
    // It ends with its input, so with this test at the latest.
    let mut stranger = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let id = stranger.id();
    jailed(move || {
        assert_eq!(allowed(id), Vec::<String>::new());
        assert_eq!(call(libc::SYS_clone3, CHILD), libc::ENOSYS);
        // Threads that are namespaces', somebody's to trace, or processes that share memory.
        for flags in [
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWNET,
            libc::CLONE_PTRACE,
            libc::CLONE_UNTRACED,
        ] {
            let thread = [wide(super::THREAD | flags), 0, 0, 0, 0, 0];
            assert_eq!(call(libc::SYS_clone, thread), libc::EPERM);
        }
        let process = [wide(libc::CLONE_VM | libc::SIGCHLD), 0, 0, 0, 0, 0];
        assert_eq!(call(libc::SYS_clone, process), libc::EPERM);
    });
    assert!(stranger.try_wait().unwrap().is_none(), "it is not killed");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn no_memory_can_be_executed_and_none_lands_in_a_core_file() {
    jailed(|| {
        assert_eq!(map(libc::PROT_READ | libc::PROT_WRITE), 0);
        for protection in [
            libc::PROT_EXEC,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
        ] {
            assert_eq!(map(protection), libc::EPERM);
            let arguments = [0, 0, wide(protection), 0, 0, 0];
            assert_eq!(call(libc::SYS_mprotect, arguments), libc::EPERM);
        }
    });
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
    assert_eq!(limit.maximum, Some(0));
}

#[test]
fn a_worker_has_what_it_needs() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 2 * PAGE]).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let kvm = File::options().read(true).write(true).open("/dev/kvm");
    jailed(move || {
        // Memory, and memory of files that it has been given.
        assert!(vec![1_u8; 32 << 20].iter().all(|byte| *byte == 1));
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let mapped = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
                &file,
                PAGE as u64,
            )
        }
        .unwrap();
        // SAFETY: the page was mapped above for reading, and the file has it.
        assert_eq!(unsafe { mapped.cast::<u8>().read() }, 7);
        // SAFETY: the mapping is private and nobody else knows its address.
        unsafe { rustix::mm::madvise(mapped, PAGE, rustix::mm::Advice::LinuxDontNeed) }.unwrap();
        // SAFETY: as above.
        unsafe { rustix::mm::munmap(mapped, PAGE) }.unwrap();
        // Files.
        let mut bytes = [0; 100];
        file.read_exact_at(&mut bytes, 5000).unwrap();
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, 2 * 4096);
        file.set_len(100).unwrap();
        let again = file.try_clone().unwrap();
        drop((file, again));
        // Events.
        let flags = rustix::event::EventfdFlags::CLOEXEC;
        let event = rustix::event::eventfd(3, flags).unwrap();
        let set = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        let data = rustix::event::epoll::EventData::new_u64(1);
        let readable = rustix::event::epoll::EventFlags::IN;
        rustix::event::epoll::add(&set, &event, data, readable).unwrap();
        let mut ready = Vec::with_capacity(4);
        let buffer = rustix::buffer::spare_capacity(&mut ready);
        rustix::event::epoll::wait(&set, buffer, None).unwrap();
        assert_eq!(ready.len(), 1);
        let mut fds = [rustix::event::PollFd::new(
            &event,
            rustix::event::PollFlags::IN,
        )];
        assert_eq!(rustix::event::poll(&mut fds, None).unwrap(), 1);
        // Messages with descriptors.
        crate::worker::message::send(
            ours.as_fd(),
            &1_u8,
            &[event.as_fd()],
            rustix::net::SendFlags::empty(),
        )
        .unwrap();
        let heard = crate::worker::message::receive::<u8>(&theirs, rustix::net::RecvFlags::empty());
        let crate::worker::message::Heard::Message(1, descriptors) = heard.unwrap() else {
            panic!("another message");
        };
        let mut counted = [0; 8];
        File::from(descriptors.into_iter().next().unwrap())
            .read_exact(&mut counted)
            .unwrap();
        assert_eq!(u64::from_ne_bytes(counted), 3);
        theirs.set_nonblocking(true).unwrap();
        (&theirs).read(&mut counted).unwrap_err();
        // KVM's requests reach KVM.
        if let Ok(kvm) = &kvm {
            let version = [wide(kvm.as_raw_fd()), 0xae00, 0, 0, 0, 0];
            assert_eq!(call(libc::SYS_ioctl, version), 0);
        }
        threads();
    });
}

/// Threads start, get a name, a signal and memory of their own, and end.
fn threads() {
    let all: Vec<_> = (0..8)
        .map(|number| {
            std::thread::Builder::new()
                .name(format!("number-{number}"))
                .spawn(move || vec![number; 1 << 20].len())
                .unwrap()
        })
        .collect();
    for thread in all {
        assert_eq!(thread.join().unwrap(), 1 << 20);
    }
    // A signal to itself: 0 is none, but Linux checks whether it may be sent.
    let own = [
        wide(std::process::id()),
        wide(rustix::thread::gettid().as_raw_nonzero().get()),
        0,
        0,
        0,
        0,
    ];
    assert_eq!(call(libc::SYS_tgkill, own), 0);
}

#[test]
fn a_processors_thread_keeps_less() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; PAGE]).unwrap();
    jailed(move || {
        // One that ends as threads do, with all that the standard library does then.
        let thread = std::thread::spawn(move || {
            enter_processor().unwrap();
            let id = std::process::id();
            assert_eq!(allowed(id), Vec::<String>::new());
            let own = rustix::thread::gettid().as_raw_nonzero().get();
            for (name, number, arguments) in [
                (
                    "a thread",
                    libc::SYS_clone,
                    [wide(super::THREAD), 0, 0, 0, 0, 0],
                ),
                (
                    "tgkill",
                    libc::SYS_tgkill,
                    [wide(id), wide(own), 0, 0, 0, 0],
                ),
                ("eventfd2", libc::SYS_eventfd2, [0; 6]),
                ("epoll_create1", libc::SYS_epoll_create1, [0; 6]),
                ("poll", libc::SYS_poll, [0; 6]),
                ("pwrite64", libc::SYS_pwrite64, [0; 6]),
                ("statx", libc::SYS_statx, [0; 6]),
                ("F_DUPFD_CLOEXEC", libc::SYS_fcntl, [0, 1030, 0, 0, 0, 0]),
                ("FIONBIO", libc::SYS_ioctl, [0, 0x5421, 0, 0, 0, 0]),
                ("KVM_CREATE_VM", libc::SYS_ioctl, [0, 0xae01, 0, 0, 0, 0]),
                ("PR_SET_NAME", libc::SYS_prctl, [15, path(), 0, 0, 0, 0]),
                ("another filter", libc::SYS_seccomp, [1, 0, 0, 0, 0, 0]),
                ("exit_group", libc::SYS_exit_group, [1, 0, 0, 0, 0, 0]),
            ] {
                assert_eq!(call(number, arguments), libc::EPERM, "{name}");
            }
            assert_eq!(map(libc::PROT_EXEC), libc::EPERM);
            // KVM_RUN of what is no processor is refused by it, not by the filter.
            let run = [wide(file.as_raw_fd()), 0xae80, 0, 0, 0, 0];
            assert_eq!(call(libc::SYS_ioctl, run), libc::ENOTTY);
            let mut bytes = [0; 100];
            file.read_exact_at(&mut bytes, 5).unwrap();
            (&ours).write_all(&bytes).unwrap();
            (&theirs).read_exact(&mut bytes).unwrap();
            rustix::net::send(&ours, &bytes, rustix::net::SendFlags::NOSIGNAL).unwrap();
            ours.shutdown(std::net::Shutdown::Both).unwrap();
            drop((ours, theirs, file));
            vec![1_u8; 32 << 20].len()
        });
        assert_eq!(thread.join().unwrap(), 32 << 20);
        // The others keep what they had.
        threads();
    });
}

#[test]
fn a_processors_thread_without_the_jail_is_as_narrow() {
    let thread = std::thread::spawn(|| {
        enter_processor().unwrap();
        let open = [wide(libc::AT_FDCWD), path(), 0, 0, 0, 0];
        call(libc::SYS_openat, open)
    });
    assert_eq!(thread.join().unwrap(), libc::EPERM);
}
