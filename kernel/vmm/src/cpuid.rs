//! What a guest is told about its processor: what this host's KVM can give, without what cannot be saved,
//! costs without serving anybody, or differs from host to host for no gain.
//!
//! A template keeps the table it was booted with. A restore gives the guest that same table, and is refused
//! by name when this host lacks a feature of it.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use crate::spec::cpuid as leaf;

/// The table for a template that is made here.
pub(crate) fn stable(supported: &CpuId) -> Vec<kvm_cpuid_entry2> {
    let mut entries: Vec<kvm_cpuid_entry2> = supported
        .as_slice()
        .iter()
        .filter(|entry| !leaf::LEFT_OUT.contains(&entry.function))
        .copied()
        .collect();
    for entry in &mut entries {
        let at = (entry.function, entry.index);
        for (place, masks) in leaf::MASKED {
            if *place == at {
                entry.eax &= !masks[0];
                entry.ebx &= !masks[1];
                entry.ecx &= !masks[2];
                entry.edx &= !masks[3];
            }
        }
        if entry.function == leaf::FEATURES {
            entry.ecx |= leaf::ALWAYS_IN_KVM;
        }
    }
    entries
}

/// The table as processor `number` of `vcpus` sees it.
pub(crate) fn for_vcpu(
    entries: &[kvm_cpuid_entry2],
    number: u8,
    vcpus: u8,
) -> Vec<kvm_cpuid_entry2> {
    let id = u32::from(number);
    let count = u32::from(vcpus.max(1));
    let bits = u8::BITS - (vcpus.max(1) - 1).leading_zeros();
    let mut table = Vec::with_capacity(entries.len() + 2);
    for entry in entries {
        let mut entry = *entry;
        match entry.function {
            leaf::FEATURES => {
                entry.ebx = (entry.ebx & 0x0000_ff00) | (id << 24) | (count << 16);
                // Hyper-threading's bit says that the count above means something.
                entry.edx = (entry.edx & !(1 << 28)) | (u32::from(vcpus > 1) << 28);
            }
            // Said below as one package of single-threaded cores.
            leaf::TOPOLOGY => continue,
            leaf::AMD_SIZES => {
                entry.ecx = (bits << 12) | (count - 1);
            }
            leaf::AMD_TOPOLOGY => {
                entry.eax = id;
                entry.ebx = id;
                entry.ecx = 0;
            }
            _ => {}
        }
        table.push(entry);
    }
    let level = |index: u32, shift: u32, here: u32, kind: u32| kvm_cpuid_entry2 {
        function: leaf::TOPOLOGY,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: here,
        ecx: (kind << 8) | index,
        edx: id,
        ..Default::default()
    };
    table.push(level(0, 0, 1, 1));
    table.push(level(1, bits, count, 2));
    table
}

/// The states that XSAVE saves, as XCR0 takes them; none where there is no XSAVE.
pub(crate) fn extended_states(table: &[kvm_cpuid_entry2]) -> u64 {
    table
        .iter()
        .find(|entry| (entry.function, entry.index) == (leaf::EXTENDED_STATE, 0))
        .map_or(0, |entry| u64::from(entry.edx) << 32 | u64::from(entry.eax))
}

/// Names what a table has and this host has not. Empty when a guest with that table can run here.
pub(crate) fn lacking(table: &[kvm_cpuid_entry2], supported: &CpuId) -> Vec<String> {
    let mut found = Vec::new();
    for wanted in table {
        let Some((_, names)) = leaf::COMPARED
            .iter()
            .find(|(place, _)| *place == (wanted.function, wanted.index))
        else {
            continue;
        };
        let here = supported
            .as_slice()
            .iter()
            .find(|entry| (entry.function, entry.index) == (wanted.function, wanted.index));
        let registers = |entry: &kvm_cpuid_entry2| [entry.eax, entry.ebx, entry.ecx, entry.edx];
        let have = here.map_or([0; 4], registers);
        for (register, (wanted_bits, have_bits)) in
            registers(wanted).into_iter().zip(have).enumerate()
        {
            let mut missing = wanted_bits & !have_bits & names.registers[register];
            if wanted.function == leaf::FEATURES && register == 2 {
                missing &= !leaf::ALWAYS_IN_KVM;
            }
            for bit in 0..32 {
                if missing & (1 << bit) != 0 {
                    found.push(leaf::name(wanted.function, wanted.index, register, bit));
                }
            }
        }
    }
    found
}

/// The maker of this host's processors as CPUID spells it.
#[must_use]
pub fn host_vendor() -> String {
    let leaf = std::arch::x86_64::__cpuid(0);
    let bytes = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    bytes
        .concat()
        .into_iter()
        .filter(u8::is_ascii_graphic)
        .map(char::from)
        .collect()
}

#[cfg(test)]
mod tests;
