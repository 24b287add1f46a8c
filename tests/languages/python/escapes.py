"""Tries to get out of the sandbox, in each way of a list, and tells of each what came of it; see the folder's README.

A way that is closed raises an `OSError` (Python's own checks a `ValueError`), or finds nothing. Whatever else an attempt returns is told as an escape.
"""

import ctypes
import os
import resource
import socket
import struct

# From <linux/if_ether.h>, <fcntl.h> and the table of system calls of x86-64.
ETH_P_ALL = 3
AT_FDCWD = -100
CALLS = {
    "ptrace": 101,
    "syslog": 103,
    "capset": 126,
    "pivot_root": 155,
    "acct": 163,
    "settimeofday": 164,
    "mount": 165,
    "umount2": 166,
    "swapon": 167,
    "reboot": 169,
    "sethostname": 170,
    "iopl": 172,
    "init_module": 175,
    "delete_module": 176,
    "clock_settime": 227,
    "kexec_load": 246,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "unshare": 272,
    "perf_event_open": 298,
    "fanotify_init": 300,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "setns": 308,
    "process_vm_readv": 310,
    "kcmp": 312,
    "finit_module": 313,
    "bpf": 321,
    "userfaultfd": 323,
    "io_uring_setup": 425,
    "open_tree": 428,
    "fsopen": 430,
    "clone3": 435,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
ATTEMPTS = []


def attempt(function):
    ATTEMPTS.append(function)
    return function


def call(name, *arguments):
    result = libc.syscall(CALLS[name], *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return f"{name} gave {result}"


def each(*tries):
    """What got through of several tries; nothing when all were refused."""
    through = []
    for one in tries:
        try:
            through.append(one())
        except (OSError, ValueError):
            pass
    return [what for what in through if what] or None


def written(path):
    with open(path, "w") as file:
        file.write("1")
    return f"wrote {path}"


def read(path):
    with open(path, "rb") as file:
        return file.read(64) and f"read {path}"


def listed(path):
    names = os.listdir(path)
    return names and f"{path} holds {names[:4]}"


@attempt
def processes_of_others():
    """/proc shows this program's own processes alone."""
    shown = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [number for number in shown if os.stat(f"/proc/{number}").st_uid != os.getuid()] or None


@attempt
def settings_of_linux():
    """/proc/sys and its like are not there to be written."""
    paths = ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger"]
    return each(*(lambda path=path: written(path) for path in paths))


@attempt
def memory_of_linux():
    """Neither Linux's memory nor its symbols can be read."""
    paths = ["/proc/kcore", "/proc/kallsyms", "/proc/kmsg", "/proc/vmallocinfo", "/dev/mem", "/dev/kmem", "/dev/port"]
    return each(*(lambda path=path: read(path) for path in paths))


@attempt
def what_the_machine_was_told():
    """Command line, mounts of the guest and its cgroups tell a stranger nothing."""
    return each(lambda: read("/proc/cmdline"), lambda: read("/proc/cpuinfo"), lambda: read("/proc/iomem"))


@attempt
def memory_of_the_first_process():
    return each(lambda: read("/proc/1/mem"), lambda: read("/proc/1/environ"), lambda: listed("/proc/1/fd"))


@attempt
def root_of_the_first_process():
    """Its root leads to no other view than this program's own."""
    return each(lambda: written("/proc/1/root/etc/passwd"), lambda: listed("/proc/1/root/run"))


@attempt
def tracing():
    PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
    return each(lambda: call("ptrace", PTRACE_ATTACH, 1, 0, 0), lambda: call("ptrace", PTRACE_SEIZE, 1, 0, 0))


@attempt
def memory_by_system_call():
    return call("process_vm_readv", 1, None, 0, None, 0, 0)


@attempt
def descriptors_of_others():
    first = os.pidfd_open(1)
    try:
        return each(lambda: call("pidfd_getfd", first, 0, 0), lambda: call("kcmp", 1, os.getpid(), 0, 0, 0))
    finally:
        os.close(first)


@attempt
def descriptors_of_the_agent():
    """Nothing but the three streams was inherited."""
    found = []
    for number in range(3, 1024):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    return found or None


@attempt
def a_terminal_to_type_on():
    return [number for number in range(3) if os.isatty(number)] or each(lambda: read("/dev/tty"), lambda: read("/dev/console"))


@attempt
def disks():
    return each(*(lambda path=path: read(path) for path in ["/dev/vda", "/dev/vdb", "/dev/sda", "/dev/pmem0", "/dev/loop0"]))


@attempt
def devices_with_a_door():
    names = ["kvm", "fuse", "vsock", "vhost-vsock", "kmsg", "net/tun", "mem", "ptmx", "hwrng", "rtc0", "shm", "mqueue"]
    return [name for name in names if os.path.exists(f"/dev/{name}")] or None


@attempt
def devices_of_its_own():
    return each(
        lambda: os.mknod("/box/disk", 0o60666, os.makedev(254, 0)) or "made a disk",
        lambda: os.mknod("/tmp/memory", 0o20666, os.makedev(1, 1)) or "made memory",
    )


@attempt
def mounting():
    return each(
        lambda: call("mount", b"none", b"/box", b"tmpfs", 0, None),
        lambda: call("mount", b"/", b"/box", None, 4096, None),
        lambda: call("fsopen", b"tmpfs", 0),
        lambda: call("open_tree", AT_FDCWD, b"/", 1),
    )


@attempt
def making_it_writable():
    MS_REMOUNT, MS_BIND = 32, 4096
    attributes = struct.pack("QQQQ", 0, 1, 0, 0)
    return each(
        lambda: call("mount", None, b"/", None, MS_REMOUNT | MS_BIND, None),
        lambda: call("mount_setattr", AT_FDCWD, b"/", 0x8000, attributes, len(attributes)),
    )


@attempt
def taking_covers_off():
    return each(*(lambda path=path: call("umount2", path, 2) for path in [b"/run", b"/proc", b"/home", b"/sys", b"/var"]))


@attempt
def another_root():
    return each(lambda: os.chroot("/box") or "changed its root", lambda: call("pivot_root", b"/box", b"/box"))


@attempt
def namespaces_of_its_own():
    """In a user namespace of its own it would be an administrator."""
    arguments = struct.pack("Q" * 11, CLONE_NEWUSER, *[0] * 10)
    return each(
        *(
            lambda flag=flag: call("unshare", flag)
            for flag in [CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWUSER | CLONE_NEWNS]
        ),
        lambda: call("clone3", arguments, len(arguments)),
    )


@attempt
def namespaces_of_others():
    def enter(name):
        descriptor = os.open(f"/proc/1/ns/{name}", os.O_RDONLY)
        return call("setns", descriptor, 0)

    return each(*(lambda name=name: enter(name) for name in ["mnt", "net", "pid", "user", "ipc", "cgroup"]))


@attempt
def modules():
    return each(
        lambda: call("init_module", b"", 0, b""),
        lambda: call("finit_module", 0, b"", 0),
        lambda: call("delete_module", b"vsock", 0),
    )


@attempt
def another_linux():
    return each(lambda: call("kexec_load", 0, 0, None, 0), lambda: call("reboot", 0xFEE1DEAD, 672274793, 0, None))


@attempt
def keyrings():
    return each(
        lambda: call("add_key", b"user", b"name", b"secret", 6, -4),
        lambda: call("request_key", b"user", b"name", None, -4),
        lambda: call("keyctl", 0, -4, 1),
    )


@attempt
def wide_doors():
    return each(
        lambda: call("bpf", 0, bytes(72), 72),
        lambda: call("perf_event_open", bytes(128), 0, -1, -1, 0),
        lambda: call("userfaultfd", 0),
        lambda: call("io_uring_setup", 8, bytes(120)),
        lambda: call("fanotify_init", 0, 0),
    )


@attempt
def files_by_their_handles():
    handle = struct.pack("II", 128, 0) + bytes(128)
    return each(
        lambda: call("name_to_handle_at", AT_FDCWD, b"/", handle, bytes(8), 0),
        lambda: call("open_by_handle_at", AT_FDCWD, handle, 0),
    )


@attempt
def vsock_to_the_host():
    return each(*(lambda kind=kind: socket.socket(socket.AF_VSOCK, kind) and "a vsock" for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM]))


@attempt
def sockets_below_ip():
    return each(
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, ETH_P_ALL) and "packets",
        lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) and "raw",
        lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) and "netlink",
        lambda: socket.socket(38, socket.SOCK_SEQPACKET, 0) and "the crypto of Linux",
    )


@attempt
def the_network():
    def reach(address):
        with socket.create_connection(address, timeout=1):
            return f"reached {address}"

    return each(*(lambda a=a: reach(a) for a in [("127.0.0.1", 1024), ("127.0.0.1", 52000), ("10.0.2.2", 80), ("1.1.1.1", 53)]))


@attempt
def sockets_with_a_path():
    """The agent's own, and names without a path, are of another namespace."""

    def reach(path):
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(path)
            return f"reached {path!r}"

    return each(lambda: reach("/run/vmrepl/agent.sock"), lambda: reach("\0vmrepl"), lambda: listed("/run"))


@attempt
def secrets_of_the_system():
    return each(lambda: read("/etc/shadow"), lambda: read("/etc/gshadow"), lambda: listed("/root"), lambda: listed("/var"))


@attempt
def files_of_the_owner():
    """The user's home, what they have compiled, and what others run, are not to be seen."""
    return each(lambda: listed("/home"), lambda: listed("/home/user"), lambda: listed("/run/vmrepl"), lambda: listed("/mnt"))


@attempt
def links_that_lead_out():
    os.symlink("/home/user", "/box/door")
    return each(lambda: written("/box/door/x"), lambda: os.link("/etc/shadow", "/box/shadow") or "linked a secret")


@attempt
def the_system():
    folders = ["/", "/etc", "/usr", "/usr/bin", "/lib", "/opt", "/srv", "/dev", "/proc", "/sys", "/run", "/var/tmp"]
    return each(*(lambda path=path: written(f"{path}/was-here") for path in folders))


@attempt
def programs_of_the_system():
    return each(lambda: written("/usr/bin/python3"), lambda: os.unlink("/etc/passwd") or "removed", lambda: os.rename("/etc", "/etc2") or "renamed")


@attempt
def another_user():
    return each(
        *(lambda number=number: os.setresuid(number, number, number) or f"is user {number}" for number in [0, 1000, 65534]),
        lambda: os.setgroups([0]) or "is of the group 0",
        lambda: os.setresgid(0, 0, 0) or "is of the group 0",
    )


@attempt
def capabilities():
    """Neither those of its own nor those that a program brings."""
    header = struct.pack("Ii", 0x20080522, 0)
    wanted = struct.pack("IIIIII", 1 << 21, 1 << 21, 1 << 21, 0, 0, 0)
    PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_GET_NO_NEW_PRIVS = 47, 2, 39
    if libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        return "programs may give new rights"
    if libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0) == 0:
        return "raised a capability"
    with open("/proc/self/status") as status:
        held = [line for line in status if line.startswith(("CapPrm", "CapEff", "CapBnd", "CapAmb")) and int(line[7:], 16)]
    return held or each(lambda: call("capset", header, wanted))


@attempt
def clocks_and_names():
    return each(
        lambda: call("settimeofday", struct.pack("qq", 1, 0), None),
        lambda: call("clock_settime", 0, struct.pack("qq", 1, 0)),
        lambda: call("sethostname", b"x", 1),
    )


@attempt
def log_swap_and_ports():
    return each(
        lambda: call("syslog", 3, ctypes.create_string_buffer(64), 64),
        lambda: call("swapon", b"/box/x", 0),
        lambda: call("acct", b"/box/x"),
        lambda: call("iopl", 3),
    )


@attempt
def more_than_its_share():
    """Limits cannot be raised, and it cannot come before others."""
    most = resource.RLIM_INFINITY
    return each(
        *(lambda kind=kind: resource.setrlimit(kind, (most, most)) or f"limit {kind}" for kind in [resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE]),
        lambda: os.nice(-5) and "a better place",
        lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)) or "real time",
    )


@attempt
def its_own_limits():
    """The tree of control groups is not to be seen."""
    return each(lambda: listed("/sys/fs"), lambda: written("/sys/fs/cgroup/cgroup.procs"))


@attempt
def killing_others():
    """No process is there but its own: those it may signal it can also list."""
    own = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    found = []
    for number in range(2, 4096):
        try:
            os.kill(number, 0)
        except OSError:
            continue
        if number not in own:
            found.append(number)
    return found or None


def main() -> None:
    for function in ATTEMPTS:
        try:
            got = function()
        except OSError as error:
            print(function.__name__, "refused:", error.strerror)
            continue
        print(function.__name__, f"ESCAPED: {got}" if got else "refused")


main()
