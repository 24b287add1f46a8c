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
    libc::SYS_ftruncate,
    libc::SYS_close,
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

/// Calls of a thread that runs a processor: a guest is entered here, and its devices are served here, for as
/// long as nothing from outside is needed.
const ALLOWED_PROCESSOR: &[libc::c_long] = &[
    // the allocator
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_mremap,
    // disk, console, streams
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    // its own life and end
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
];

/// All requests of KVM carry this byte (`KVMIO` of `linux/kvm.h`) where `asm-generic/ioctl.h` puts a request's type.
const KVM_REQUESTS: u64 = 0xae00;
const REQUEST_TYPE: u64 = 0xff00;
/// `PAGEMAP_SCAN` of `linux/fs.h`.
const PAGEMAP_SCAN: u64 = 0xc060_6610;

/// `KVM_RUN`, `KVM_SIGNAL_MSI`, and `KVM_GET_REGS` for saying where a guest stood.
const PROCESSOR_REQUESTS: [u64; 3] = [0xae80, 0x4020_aea5, 0x8090_ae81];

/// The flags of a thread as the C libraries start them; one says it with an old flag that means nothing.
const THREAD: libc::c_int = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID;

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
    program.extend(worker().map_err(JailError::Filter)?);
    seccompiler::apply_filter(&program).map_err(JailError::Install)
}

/// Leaves the calling thread only what running a processor needs. The first thing that such a thread does.
pub(crate) fn enter_processor() -> Result<(), JailError> {
    let program = processor().map_err(JailError::Filter)?;
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

type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;
type Condition = Result<SeccompCondition, seccompiler::BackendError>;

/// An argument, of which Linux looks at 32 bits, has this value under this mask.
fn masked(argument: u8, mask: u64, value: u64) -> Condition {
    let operator = SeccompCmpOp::MaskedEq(mask);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

fn is(argument: u8, value: u64) -> Condition {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

/// A number of Linux as a filter sees it.
fn bits(number: libc::c_int) -> u64 {
    number.cast_unsigned().into()
}

/// A rule that holds when all conditions do.
fn all<const N: usize>(
    conditions: [Condition; N],
) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = conditions.into_iter().collect::<Result<_, _>>()?;
    SeccompRule::new(conditions)
}

/// Memory, but none that can be executed.
fn memory(rules: &mut Rules) -> Result<(), seccompiler::BackendError> {
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![all([masked(2, bits(libc::PROT_EXEC), 0)])?]);
    }
    Ok(())
}

fn worker() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: Rules = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    memory(&mut rules)?;
    let requests = vec![
        all([masked(1, REQUEST_TYPE, KVM_REQUESTS)])?,
        all([is(1, libc::FIONBIO)])?,
        all([is(1, PAGEMAP_SCAN)])?,
    ];
    rules.insert(libc::SYS_ioctl, requests);
    // No signals on a descriptor's behalf, no locks, no seals.
    let flags = [
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_DUPFD_CLOEXEC,
    ];
    let flags = flags.map(|flag| all([is(1, bits(flag))]));
    rules.insert(
        libc::SYS_fcntl,
        flags.into_iter().collect::<Result<_, _>>()?,
    );
    // Threads, but no processes and no namespaces.
    let thread = all([masked(0, bits(!libc::CLONE_DETACHED), bits(THREAD))])?;
    rules.insert(libc::SYS_clone, vec![thread]);
    // Signals to its own threads.
    let own = all([is(0, std::process::id().into())])?;
    rules.insert(libc::SYS_tgkill, vec![own]);
    let name = all([is(0, bits(libc::PR_SET_NAME))])?;
    // A processor's thread narrows its jail: see `enter_processor`.
    let narrower = all([is(0, bits(libc::PR_SET_NO_NEW_PRIVS)), is(1, 1)])?;
    rules.insert(libc::SYS_prctl, vec![name, narrower]);
    let filter = all([is(0, libc::SECCOMP_SET_MODE_FILTER.into()), is(1, 0)])?;
    rules.insert(libc::SYS_seccomp, vec![filter]);
    allow_list(rules)
}

fn processor() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: Rules = ALLOWED_PROCESSOR
        .iter()
        .map(|call| (*call, Vec::new()))
        .collect();
    memory(&mut rules)?;
    let requests = PROCESSOR_REQUESTS.map(|request| all([is(1, request)]));
    let requests = requests.into_iter().collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_ioctl, requests);
    // The standard library looks whether a descriptor that it closes was open.
    rules.insert(libc::SYS_fcntl, vec![all([is(1, bits(libc::F_GETFD))])?]);
    // It may end the process, and nobody else.
    let abort = all([is(0, std::process::id().into()), is(2, bits(libc::SIGABRT))])?;
    rules.insert(libc::SYS_tgkill, vec![abort]);
    allow_list(rules)
}

fn allow_list(rules: Rules) -> Result<BpfProgram, seccompiler::BackendError> {
    let errno = u32::try_from(libc::EPERM).expect("a small number");
    SeccompFilter::new(
        rules,
        SeccompAction::Errno(errno),
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?
    .try_into()
}

#[cfg(test)]
mod tests;
