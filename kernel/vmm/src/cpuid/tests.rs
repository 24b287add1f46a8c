//! Tables of features: as each processor sees them, and as another host compares them.

use std::collections::BTreeSet;

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use proptest::prelude::*;

use super::{extended_states, for_vcpu, lacking, stable};
use crate::limits::VCPUS_MAX;
use crate::spec::cpuid as leaf;

fn entry(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
    let [eax, ebx, ecx, edx] = registers;
    kvm_cpuid_entry2 {
        function,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    }
}

/// A host that has everything.
fn host() -> CpuId {
    let mut entries: Vec<_> = leaf::COMPARED
        .iter()
        .map(|((function, index), _)| entry(*function, *index, [u32::MAX; 4]))
        .collect();
    for function in leaf::LEFT_OUT {
        entries.push(entry(function, 0, [u32::MAX; 4]));
    }
    entries.push(entry(leaf::TOPOLOGY, 0, [u32::MAX; 4]));
    entries.push(entry(leaf::AMD_TOPOLOGY, 0, [u32::MAX; 4]));
    CpuId::from_entries(&entries).unwrap()
}

fn find(table: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
    let mut all = table
        .iter()
        .filter(|entry| (entry.function, entry.index) == (function, index));
    let found = all.next().expect("the leaf is there");
    assert!(all.next().is_none(), "once");
    *found
}

#[test]
fn what_cannot_be_saved_is_not_shown() {
    let table = stable(&host());
    for function in leaf::LEFT_OUT {
        assert!(table.iter().all(|entry| entry.function != function));
    }
    let features = find(&table, 1, 0);
    let vmx_and_monitor = (1 << 5) | (1 << 3);
    assert_eq!(features.ecx & vmx_and_monitor, 0);
    assert_eq!(
        features.ecx & leaf::ALWAYS_IN_KVM,
        leaf::ALWAYS_IN_KVM,
        "the local APIC in its newer form, its deadline, and that there is a host"
    );
    assert_eq!(find(&table, 0x8000_0001, 0).ecx & (1 << 2), 0, "SVM");
    let amx = (1 << 22) | (1 << 24) | (1 << 25);
    assert_eq!(find(&table, 7, 0).edx & amx, 0);
    // KVM's own: no address that it would have to be given again, but for its clock.
    assert_eq!(
        find(&table, leaf::KVM_FEATURES, 0).eax & 0x3_d4f1,
        0,
        "async page faults, steal time, PV EOI and the like"
    );
}

#[test]
fn every_processor_has_its_own_number_in_one_package() {
    let table = stable(&host());
    for vcpus in 1..=u32::from(VCPUS_MAX) {
        let mut ids = BTreeSet::new();
        for number in 0..vcpus {
            let [own_number, all] = [number, vcpus].map(|count| u8::try_from(count).unwrap());
            let own = for_vcpu(&table, own_number, all);
            let features = find(&own, 1, 0);
            assert!(ids.insert(features.ebx >> 24));
            assert_eq!((features.ebx >> 16) & 0xff, vcpus);
            assert_eq!(features.edx & (1 << 28) != 0, vcpus > 1);
            let (threads, cores) = (find(&own, 0xb, 0), find(&own, 0xb, 1));
            assert_eq!((threads.eax, threads.ebx), (0, 1));
            assert_eq!(cores.ebx, vcpus);
            assert!(1 << cores.eax >= vcpus);
            assert_eq!((threads.edx, cores.edx), (number, number));
            assert_eq!(find(&own, 0x8000_0008, 0).ecx & 0xff, vcpus - 1);
            assert_eq!(find(&own, 0x8000_001e, 0).eax, number);
        }
    }
}

#[test]
fn a_host_without_a_feature_is_told_which() {
    let host = host();
    let table = stable(&host);
    assert!(lacking(&table, &host).is_empty());
    let mut poorer = host.clone();
    for entry in poorer.as_mut_slice() {
        match (entry.function, entry.index) {
            (7, 0) => entry.ebx &= !(1 << 5),
            (0x8000_0001, 0) => entry.edx &= !(1 << 27),
            // What KVM gives on every host is not the host's.
            (1, 0) => entry.ecx &= !leaf::ALWAYS_IN_KVM,
            _ => {}
        }
    }
    assert_eq!(lacking(&table, &poorer), ["avx2", "rdtscp"]);
    let without = poorer.as_slice().iter().filter(|entry| entry.function != 7);
    let without: Vec<_> = without.copied().collect();
    let none = CpuId::from_entries(&without).unwrap();
    let names = lacking(&table, &none);
    assert!(names.contains(&"avx512f".to_owned()));
    assert!(names.contains(&"cpuid 0x7.0 ebx bit 0".to_owned()));
}

fn entries() -> impl Strategy<Value = Vec<kvm_cpuid_entry2>> {
    let function = prop_oneof![
        4 => proptest::sample::select(vec![1_u32, 7, 0xb, 0xd, 0x4000_0001, 0x8000_0001, 0x8000_0008]),
        1 => any::<u32>(),
    ];
    let index = prop_oneof![4 => 0_u32..3, 1 => any::<u32>()];
    let entry = (function, index, any::<[u32; 4]>())
        .prop_map(|(function, index, registers)| entry(function, index, registers));
    proptest::collection::vec(entry, 0..78)
}

proptest! {
    #[test]
    fn any_table_is_compared_and_shown(
        table in entries(),
        here in entries(),
        number in any::<u8>(),
        vcpus in any::<u8>(),
    ) {
        let here = CpuId::from_entries(&here).unwrap();
        let own = CpuId::from_entries(&table).unwrap();
        let _names = lacking(&table, &here);
        let shown = stable(&own);
        let places: BTreeSet<_> = table.iter().map(|one| (one.function, one.index)).collect();
        // Of two entries for one place the first counts.
        let is_clear = places.len() == table.len();
        prop_assert!(!is_clear || lacking(&shown, &own).is_empty());
        prop_assert!(for_vcpu(&table, number, vcpus).len() <= table.len() + 2);
    }
}

#[test]
fn extended_states_are_one_number() {
    let state = |eax, edx| [entry(leaf::EXTENDED_STATE, 0, [eax, 0x340, 0x340, edx])];
    assert_eq!(extended_states(&state(7, 0)), 7);
    assert_eq!(extended_states(&state(0xe7, 1)), 0x1_0000_00e7);
    let other = [entry(leaf::EXTENDED_STATE, 1, [7; 4])];
    assert_eq!(extended_states(&other), 0, "a host without XSAVE");
}
