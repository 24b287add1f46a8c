//! Numbers of standards, by standard.

/// CPUID: Intel SDM volume 2A "CPUID", AMD APM volume 3 appendix E; KVM's own leaves:
/// <https://docs.kernel.org/virt/kvm/x86/cpuid.html>.
pub(crate) mod cpuid {
    pub(crate) const FEATURES: u32 = 1;
    pub(crate) const TOPOLOGY: u32 = 0xb;
    pub(crate) const EXTENDED_STATE: u32 = 0xd;
    pub(crate) const AMD_SIZES: u32 = 0x8000_0008;
    pub(crate) const AMD_TOPOLOGY: u32 = 0x8000_001e;
    pub(crate) const KVM_FEATURES: u32 = 0x4000_0001;

    /// Leaves that no guest sees: monitor/mwait, power and heat, performance counters, topology of the
    /// second kind (ours says all in leaf 0xb), platform QoS, SGX, trace, AMX tiles, AMD's IBS, QoS,
    /// encrypted memory and extended performance monitoring.
    pub(crate) const LEFT_OUT: [u32; 16] = [
        0x5,
        0x6,
        0xa,
        0xf,
        0x10,
        0x12,
        0x14,
        0x1d,
        0x1e,
        0x1f,
        0x8000_001b,
        0x8000_001f,
        0x8000_0020,
        0x8000_0022,
        0x8000_0026,
        0x8000_000a,
    ];

    /// x2APIC, the TSC deadline timer and "there is a hypervisor": KVM gives them on every host.
    pub(crate) const ALWAYS_IN_KVM: u32 = (1 << 21) | (1 << 24) | (1 << 31);

    /// Bits to clear: (leaf, subleaf), then EAX, EBX, ECX, EDX.
    pub(crate) const MASKED: &[((u32, u32), [u32; 4])] = &[
        // debug store, monitor, DS-CPL, VMX, SMX, SpeedStep, TM2, SDBG, xTPR, PDCM
        (
            (1, 0),
            [
                0,
                0,
                bits(&[2, 3, 4, 5, 6, 7, 8, 11, 14, 15]),
                bits(&[7, 14, 21, 22, 29]),
            ],
        ),
        // SGX, HLE, QoS, RTM, MPX, trace | PKU, OSPKE, WAITPKG, LA57, bus lock, SGX LC, PKS | UINTR, AMX
        (
            (7, 0),
            [
                0,
                bits(&[2, 4, 11, 12, 14, 15, 25]),
                bits(&[3, 4, 5, 7, 16, 24, 29, 30, 31]),
                bits(&[5, 11, 13, 16, 20, 22, 24, 25]),
            ],
        ),
        // AMX's numbers
        ((7, 1), [bits(&[21]), 0, 0, u32::MAX]),
        // states of PKRU and AMX
        ((EXTENDED_STATE, 0), [bits(&[3, 4, 9, 17, 18]), 0, 0, 0]),
        // supervisor states: none
        ((EXTENDED_STATE, 1), [0, 0, u32::MAX, u32::MAX]),
        // SVM, IBS, SKINIT, watchdog, LWP, NodeId, topology, performance counters, MWAITX
        (
            (0x8000_0001, 0),
            [
                0,
                0,
                bits(&[2, 10, 12, 13, 15, 19, 23, 24, 26, 27, 28, 29]),
                0,
            ],
        ),
        // async page faults, steal time, PV EOI, PV unhalt, poll control, migration control, extended ids:
        // the guest would give KVM addresses that we had to carry, or ask for what we do not do
        (
            (KVM_FEATURES, 0),
            [bits(&[0, 4, 5, 6, 7, 10, 12, 14, 15, 16, 17]), 0, 0, 0],
        ),
    ];

    const fn bits(numbers: &[u32]) -> u32 {
        let mut mask = 0;
        let mut at = 0;
        while at < numbers.len() {
            mask |= 1 << numbers[at];
            at += 1;
        }
        mask
    }

    /// Which registers of a leaf are sets of features.
    #[derive(Debug)]
    pub(crate) struct Registers {
        pub(crate) registers: [u32; 4],
    }

    const ALL: u32 = u32::MAX;

    /// What a restore compares: (leaf, subleaf) and the bits that mean features.
    pub(crate) const COMPARED: &[((u32, u32), Registers)] = &[
        // OSXSAVE follows CR4 and says nothing about the host
        (
            (1, 0),
            Registers {
                registers: [0, 0, ALL & !(1 << 27), ALL & !(1 << 28)],
            },
        ),
        (
            (7, 0),
            Registers {
                registers: [0, ALL, ALL & !(1 << 4), ALL],
            },
        ),
        (
            (7, 1),
            Registers {
                registers: [ALL, ALL, ALL, ALL],
            },
        ),
        (
            (7, 2),
            Registers {
                registers: [0, 0, 0, ALL],
            },
        ),
        (
            (EXTENDED_STATE, 0),
            Registers {
                registers: [ALL, 0, 0, ALL],
            },
        ),
        (
            (EXTENDED_STATE, 1),
            Registers {
                registers: [ALL, 0, ALL, ALL],
            },
        ),
        (
            (0x8000_0001, 0),
            Registers {
                registers: [0, 0, ALL, ALL],
            },
        ),
        (
            (0x8000_0007, 0),
            Registers {
                registers: [0, 0, 0, ALL],
            },
        ),
        (
            (0x8000_0008, 0),
            Registers {
                registers: [0, ALL, 0, 0],
            },
        ),
        (
            (0x8000_0021, 0),
            Registers {
                registers: [ALL, 0, 0, 0],
            },
        ),
        (
            (KVM_FEATURES, 0),
            Registers {
                registers: [ALL, 0, 0, 0],
            },
        ),
    ];

    /// Names of features people know; the rest is named by its place.
    const NAMES: &[(u32, u32, usize, u32, &str)] = &[
        (1, 0, 2, 0, "sse3"),
        (1, 0, 2, 1, "pclmulqdq"),
        (1, 0, 2, 9, "ssse3"),
        (1, 0, 2, 12, "fma"),
        (1, 0, 2, 13, "cx16"),
        (1, 0, 2, 19, "sse4.1"),
        (1, 0, 2, 20, "sse4.2"),
        (1, 0, 2, 22, "movbe"),
        (1, 0, 2, 23, "popcnt"),
        (1, 0, 2, 25, "aes"),
        (1, 0, 2, 26, "xsave"),
        (1, 0, 2, 28, "avx"),
        (1, 0, 2, 29, "f16c"),
        (1, 0, 2, 30, "rdrand"),
        (7, 0, 1, 3, "bmi1"),
        (7, 0, 1, 5, "avx2"),
        (7, 0, 1, 8, "bmi2"),
        (7, 0, 1, 9, "erms"),
        (7, 0, 1, 10, "invpcid"),
        (7, 0, 1, 16, "avx512f"),
        (7, 0, 1, 17, "avx512dq"),
        (7, 0, 1, 18, "rdseed"),
        (7, 0, 1, 19, "adx"),
        (7, 0, 1, 20, "smap"),
        (7, 0, 1, 23, "clflushopt"),
        (7, 0, 1, 24, "clwb"),
        (7, 0, 1, 28, "avx512cd"),
        (7, 0, 1, 29, "sha"),
        (7, 0, 1, 30, "avx512bw"),
        (7, 0, 1, 31, "avx512vl"),
        (7, 0, 2, 1, "avx512vbmi"),
        (7, 0, 2, 6, "avx512vbmi2"),
        (7, 0, 2, 8, "gfni"),
        (7, 0, 2, 9, "vaes"),
        (7, 0, 2, 10, "vpclmulqdq"),
        (7, 0, 2, 11, "avx512vnni"),
        (7, 0, 2, 22, "rdpid"),
        (7, 0, 3, 4, "fsrm"),
        (7, 0, 3, 23, "avx512fp16"),
        (7, 1, 0, 4, "avxvnni"),
        (7, 1, 0, 5, "avx512bf16"),
        (0x8000_0001, 0, 2, 0, "lahf"),
        (0x8000_0001, 0, 2, 5, "lzcnt"),
        (0x8000_0001, 0, 2, 6, "sse4a"),
        (0x8000_0001, 0, 3, 26, "1g-pages"),
        (0x8000_0001, 0, 3, 27, "rdtscp"),
        (0x8000_0007, 0, 3, 8, "invariant-tsc"),
    ];

    /// The name of a feature bit.
    pub(crate) fn name(leaf: u32, subleaf: u32, register: usize, bit: u32) -> String {
        let known = NAMES
            .iter()
            .find(|(l, s, r, b, _)| (*l, *s, *r, *b) == (leaf, subleaf, register, bit));
        match known {
            Some((.., name)) => (*name).to_owned(),
            None => {
                let register = ["eax", "ebx", "ecx", "edx"][register.min(3)];
                format!("cpuid {leaf:#x}.{subleaf} {register} bit {bit}")
            }
        }
    }
}

/// Registers of the local APIC as KVM gives them: offsets in its page (Intel SDM volume 3, table 11-1).
pub(crate) mod lapic {
    pub(crate) const TASK_PRIORITY: usize = 0x80;
    pub(crate) const PROCESSOR_PRIORITY: usize = 0xa0;
    /// 256 bits, 32 in every 16 bytes; so the next.
    pub(crate) const IN_SERVICE: usize = 0x100;
    pub(crate) const REQUESTED: usize = 0x200;
    pub(crate) const LVT_TIMER: usize = 0x320;
}

/// Model-specific registers: Intel SDM volume 4, AMD APM volume 2 appendix A; KVM's own:
/// <https://docs.kernel.org/virt/kvm/x86/msr.html>.
pub(crate) mod msr {
    use std::ops::RangeInclusive;

    pub(crate) const TSC: u32 = 0x10;
    pub(crate) const TSC_ADJUST: u32 = 0x3b;
    pub(crate) const TSC_DEADLINE: u32 = 0x6e0;
    pub(crate) const MISC_ENABLE: u32 = 0x1a0;
    /// Fast string operations, which Linux expects to be on.
    pub(crate) const MISC_ENABLE_FAST_STRING: u64 = 1;
    pub(crate) const MTRR_DEF_TYPE: u32 = 0x2ff;
    /// MTRRs on, memory that none names is write-back.
    pub(crate) const MTRR_WRITE_BACK: u64 = 0x806;

    /// What KVM keeps and does not list: memory types (variable and fixed ranges, and the default), and the banks of
    /// machine checks. Those that a processor lacks are passed over.
    pub(crate) const UNLISTED: [RangeInclusive<u32>; 7] = [
        0x200..=0x20f,
        0x250..=0x250,
        0x258..=0x259,
        0x268..=0x26f,
        MTRR_DEF_TYPE..=MTRR_DEF_TYPE,
        0x17a..=0x17b,
        0x400..=0x47f,
    ];

    /// Registers that go on by themselves: the counter, and the deadline that is compared with it.
    pub(crate) fn is_time(index: u32) -> bool {
        matches!(index, TSC | TSC_DEADLINE)
    }

    /// Left out of the state: feature masks that follow from CPUID, the microcode's revision, VMX and
    /// performance registers that the guest's CPUID does not have, Hyper-V's and Xen's.
    pub(crate) fn is_saved(index: u32) -> bool {
        !matches!(index,
            0x8b                        // microcode revision
            | 0x34                      // SMI count: read-only
            | 0x345                     // PERF_CAPABILITIES
            | 0x3a                      // FEATURE_CONTROL
            | 0x480..=0x493             // VMX capabilities
            | 0x38d..=0x390 | 0x3f1 | 0x3f6
            | 0x309..=0x30b | 0xc1..=0xc8 | 0x186..=0x18d
            | 0x11 | 0x4b56_4d00        // KVM's wall clock: setting it writes the time into memory, once
            | 0x4000_0000..=0x4000_0fff // Hyper-V
            | 0xc001_0000..=0xc001_0007 // K7 performance counters
            | 0xc001_0200..=0xc001_020b // family 15h performance counters
            | 0xc000_0300..=0xc000_0303 // performance monitoring, version 2
            | 0xc001_0114..=0xc001_0117 // SVM
            | 0x10a                     // ARCH_CAPABILITIES
            | 0x176a
        )
    }
}
