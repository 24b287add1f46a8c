//! The command line of the machine: the same devices at boot and at every restore.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::limits::CODE_CACHE_MIB;

/// The machine type, part of what a snapshot must match.
pub const MACHINE_TYPE: &str = "microvm";

/// The processor, part of what a snapshot must match: all that emulation offers, but for what costs it
/// and serves nobody here. SMAP ends a translated block at each copy from or to user memory; a fifth
/// level of page tables is one more load a walk; protection keys make every context longer; with ERMS
/// Linux and the C library clear and copy memory byte by byte, which emulation does six times slower than
/// by words.
pub const CPU: &str = "max,-smap,-la57,-pku,-erms";

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// Guest memory in bytes; the size of `memory_file`.
    pub memory_bytes: u64,
    /// Number of virtual processors.
    pub vcpus: u8,
    /// The file behind guest memory: written to when booting, mapped private when restoring.
    pub memory_file: PathBuf,
    /// The read-only disk image.
    pub root: PathBuf,
}

/// What a first boot needs beside the machine.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Uncompressed ELF with a PVH entry.
    pub vmlinux: PathBuf,
    /// The initial RAM file system.
    pub initramfs: PathBuf,
    /// Words for Linux's command line.
    pub command_line: String,
}

/// The descriptors that QEMU inherits, by number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inherited {
    pub(crate) channel: RawFd,
    pub(crate) monitor: RawFd,
    pub(crate) state: RawFd,
    pub(crate) console: RawFd,
}

/// How the process starts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a> {
    /// From a Linux, with memory shared with its file: the file becomes the base.
    Boot(&'a Boot),
    /// From the state behind the inherited descriptor, running as soon as it is loaded.
    Restore,
    /// As `Restore`, but waits for `migrate-incoming` so that pages can be laid first.
    RestoreDeferred,
}

/// The arguments, in order. Everything that shapes the device state is the same for all starts.
pub(crate) fn arguments(config: &Config, start: Start<'_>, fds: Inherited) -> Vec<OsString> {
    let mut line: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| line.extend(words.iter().map(OsString::from));
    add(&[
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    add(&["-sandbox"]);
    add(&["on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    // The PIT stays: Linux calibrates its clock on it under emulation. The rest is dead weight.
    add(&[
        "-M",
        &format!(
            "{MACHINE_TYPE},pit=on,pic=on,rtc=off,mem-merge=off,isa-serial=on,acpi=on,usb=off,pcie=off,memory-backend=ram0,suppress-vmdesc=on,auto-kernel-cmdline=off"
        ),
    ]);
    add(&[
        "-accel",
        &format!("tcg,thread=single,tb-size={CODE_CACHE_MIB}"),
        "-cpu",
        CPU,
    ]);
    add(&["-smp", &config.vcpus.to_string()]);
    add(&["-m", &format!("{}k", config.memory_bytes / 1024)]);
    // `xen-save-devices-state` writes no configuration section, so the load must not expect one.
    add(&["-global", "migration.send-configuration=off"]);
    add(&["-global", "virtio-mmio.force-legacy=false"]);
    let share = if matches!(start, Start::Boot(_)) {
        "on"
    } else {
        "off"
    };
    line.push("-object".into());
    line.push(joined(
        &format!(
            "memory-backend-file,id=ram0,size={}k,share={share},mem-path=",
            config.memory_bytes / 1024
        ),
        &config.memory_file,
    ));
    line.push("-blockdev".into());
    line.push(joined(
        "driver=raw,node-name=root,read-only=on,file.driver=file,file.locking=off,file.filename=",
        &config.root,
    ));
    let mut add = |words: &[&str]| line.extend(words.iter().map(OsString::from));
    add(&["-device", "virtio-blk-device,drive=root"]);
    add(&["-device", "virtio-serial-device,max_ports=2"]);
    add(&["-chardev", &format!("socket,id=channel,fd={}", fds.channel)]);
    add(&["-device", "virtserialport,chardev=channel,name=vmrepl.0"]);
    add(&["-chardev", &format!("socket,id=monitor,fd={}", fds.monitor)]);
    add(&["-mon", "chardev=monitor,mode=control"]);
    match start {
        Start::Boot(boot) => {
            add(&[
                "-chardev",
                &format!("file,id=console,path=/proc/self/fd/{}", fds.console),
            ]);
            add(&["-serial", "chardev:console"]);
            add(&["-append", &boot.command_line, "-kernel"]);
            line.push(boot.vmlinux.clone().into());
            line.push("-initrd".into());
            line.push(boot.initramfs.clone().into());
        }
        Start::Restore => {
            add(&["-serial", "null", "-incoming", &format!("fd:{}", fds.state)]);
        }
        Start::RestoreDeferred => add(&["-serial", "null", "-S", "-incoming", "defer"]),
    }
    line
}

/// An option list that ends in a path; a comma in the path is doubled, as QEMU's parser wants it.
fn joined(options: &str, path: &std::path::Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = options.as_bytes().to_vec();
    for &byte in path.as_os_str().as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(byte);
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fds() -> Inherited {
        Inherited {
            channel: 10,
            monitor: 11,
            state: 12,
            console: 13,
        }
    }

    fn config() -> Config {
        Config {
            memory_bytes: 256 << 20,
            vcpus: 1,
            memory_file: PathBuf::from("/store/a,b/memory"),
            root: PathBuf::from("/cache/root"),
        }
    }

    #[test]
    fn devices_are_the_same_at_boot_and_restore() {
        let boot = Boot {
            vmlinux: "/v".into(),
            initramfs: "/i".into(),
            command_line: "quiet".into(),
        };
        let devices = |start| -> Vec<OsString> {
            let line = arguments(&config(), start, fds());
            line.windows(2)
                .filter(|pair| {
                    ["-device", "-M", "-cpu", "-smp", "-m", "-global"]
                        .iter()
                        .any(|f| pair[0] == *f)
                })
                .map(|pair| pair[1].clone())
                .collect()
        };
        assert_eq!(devices(Start::Boot(&boot)), devices(Start::Restore));
        assert_eq!(devices(Start::Restore), devices(Start::RestoreDeferred));
        assert_eq!(devices(Start::Restore).len(), 9);
    }

    #[test]
    fn a_base_is_written_at_boot_only_and_commas_are_escaped() {
        let line = arguments(&config(), Start::Restore, fds());
        let memory = line
            .iter()
            .find(|w| w.to_string_lossy().starts_with("memory-backend"))
            .unwrap();
        assert!(memory.to_string_lossy().contains("share=off"), "{memory:?}");
        assert!(
            memory.to_string_lossy().ends_with("/store/a,,b/memory"),
            "{memory:?}"
        );
    }
}
