//! One line about the KVM that jobs meet, said by a user of it.

use std::fs::read_to_string;
use std::os::unix::fs::MetadataExt as _;

use kvm_ioctls::Kvm;

/// `KVM_CAP_*` of Linux' `include/uapi/linux/kvm.h`.
mod spec {
    pub(super) const DIRTY_LOG_RING: u64 = 192;
    pub(super) const DIRTY_LOG_RING_ACQ_REL: u64 = 223;
    pub(super) const PRE_FAULT_MEMORY: u64 = 236;
    /// Linux got `PAGEMAP_SCAN` with this version.
    pub(super) const PAGEMAP_SCAN: (u32, u32) = (6, 7);
}

/// Prints the line to stderr.
pub(crate) fn print() {
    let text = |path: &str| {
        read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let release = text("/proc/sys/kernel/osrelease");
    let uid = std::fs::metadata("/proc/self").map_or(0, |process| process.uid());
    let flags = text("/proc/cpuinfo");
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let virtualisation = match (has("svm"), has("vmx")) {
        (true, _) => format!(
            "svm with npt={}",
            text("/sys/module/kvm_amd/parameters/npt")
        ),
        (_, true) => format!(
            "vmx with ept={}",
            text("/sys/module/kvm_intel/parameters/ept")
        ),
        _ => "neither svm nor vmx".to_owned(),
    };
    let kvm = match Kvm::new() {
        Err(error) => format!("/dev/kvm does not open as uid {uid}: {error}"),
        Ok(kvm) => {
            let yes = |capability| {
                if kvm.check_extension_raw(capability) > 0 {
                    "yes"
                } else {
                    "no"
                }
            };
            let ring = [spec::DIRTY_LOG_RING, spec::DIRTY_LOG_RING_ACQ_REL]
                .map(yes)
                .contains(&"yes");
            format!(
                "/dev/kvm opened as uid {uid}, dirty ring {}, PRE_FAULT_MEMORY {}",
                if ring { "yes" } else { "no" },
                yes(spec::PRE_FAULT_MEMORY)
            )
        }
    };
    let scan = if version(&release) >= Some(spec::PAGEMAP_SCAN) {
        "yes"
    } else {
        "no"
    };
    eprintln!("kvm: Linux {release}, {virtualisation}, {kvm}, PAGEMAP_SCAN {scan}");
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version("6.12.117+deb12-cloud-amd64"), Some((6, 12)));
        assert!(version("6.12") > version("6.7"));
        assert_eq!(version("x"), None);
    }
}
