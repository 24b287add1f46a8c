//! What a worker may still do: run a machine with what it was given. No file, no socket, no process, no
//! memory that can be executed.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

/// What the jail is built of.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JailError {
    #[error("could not make a filter of system calls")]
    Filter(#[source] seccompiler::BackendError),
    #[error("could not install the filter of system calls")]
    Install(#[source] seccompiler::Error),
    #[error("could not {step}")]
    Limit {
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Calls that a worker makes, whatever their arguments.
const ALLOWED: &[libc::c_long] = &[
    // memory that it has
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_mremap,
    // descriptors that it has
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_ftruncate,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_ioctl,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    // its threads
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Shuts the jail behind the calling thread and all that it starts.
pub(crate) fn enter() -> Result<(), JailError> {
    let limit = |step| {
        move |errno: rustix::io::Errno| JailError::Limit {
            step,
            source: errno.into(),
        }
    };
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Guest memory never lands in a core file.
    rustix::process::setrlimit(rustix::process::Resource::Core, none)
        .map_err(limit("forbid core files"))?;
    rustix::thread::set_no_new_privs(true).map_err(limit("give up new privileges"))?;
    // The C library tries this call first, and takes the older one only when it does not exist.
    let mut program = missing(libc::SYS_clone3);
    program.extend(allow_list().map_err(JailError::Filter)?);
    seccompiler::apply_filter(&program).map_err(JailError::Install)
}

/// The beginning of a filter that says of one call that it does not exist. Number of the call first in what a
/// filter sees (Linux's `struct seccomp_data`); the instructions are those of `linux/filter.h`.
fn missing(call: libc::c_long) -> BpfProgram {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ERRNO: u32 = 0x0005_0000;
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let number = u32::try_from(call).expect("numbers of calls are small");
    let errno = u32::try_from(libc::ENOSYS).expect("a small number");
    vec![
        instruction(LOAD_WORD, 0, 0, 0),
        instruction(JUMP_IF_EQUAL, 0, 1, number),
        instruction(RETURN, 0, 0, ERRNO | errno),
    ]
}

fn allow_list() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let bits = |argument, mask: i32, value: i32| {
        SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(u64::from(mask.cast_unsigned())),
            u64::from(value.cast_unsigned()),
        )
    };
    // Memory, but none that can be executed.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let rule = SeccompRule::new(vec![bits(2, libc::PROT_EXEC, 0)?])?;
        rules.insert(call, vec![rule]);
    }
    // Threads, but no processes and no namespaces.
    let spaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let thread = libc::CLONE_THREAD | libc::CLONE_VM;
    let rule = SeccompRule::new(vec![bits(0, thread | spaces, thread)?])?;
    rules.insert(libc::SYS_clone, vec![rule]);
    let name = SeccompRule::new(vec![bits(0, -1, libc::PR_SET_NAME)?])?;
    rules.insert(libc::SYS_prctl, vec![name]);
    let errno = u32::try_from(libc::EPERM).expect("a small number");
    SeccompFilter::new(
        rules,
        SeccompAction::Errno(errno),
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?
    .try_into()
}
