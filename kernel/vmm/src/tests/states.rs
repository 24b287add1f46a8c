//! Bytes that may be the state of a machine: an error, or a value that is written as the same bytes.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use virtio_queue::QueueState;
use zerocopy::FromBytes;

use crate::devices::tests::long;
use crate::devices::{IoapicState, LINES, StateError, TransportState};
use crate::limits::STATE_BYTES;
use crate::state::{DevicesState, MachineState, VcpuState};
use crate::vsock::VsockState;

/// A structure of KVM with something in every byte.
fn filled<T: FromBytes>(seed: u8) -> T {
    let bytes: Vec<u8> = (0..size_of::<T>())
        .map(|at| seed ^ at.to_le_bytes()[0])
        .collect();
    T::read_from_bytes(&bytes).unwrap()
}

fn vcpu(seed: u8) -> VcpuState {
    VcpuState {
        tsc_khz: 2_000_000,
        mp_state: filled(seed),
        regs: filled(seed),
        sregs: filled(seed),
        xsave: vec![seed; 1000],
        xcrs: filled(seed),
        debug: filled(seed),
        lapic: filled(seed),
        msrs: vec![filled(seed); 30],
        events: filled(seed),
    }
}

pub(crate) fn state() -> MachineState {
    let queue = QueueState {
        max_size: 256,
        next_avail: 7,
        next_used: 7,
        event_idx_enabled: false,
        size: 128,
        ready: true,
        desc_table: 0x1_0000,
        avail_ring: 0x1_4000,
        used_ring: 0x1_5000,
    };
    let transport = TransportState {
        driver_features: 1 << 32,
        device_features_select: 1,
        driver_features_select: 1,
        queue_select: 0,
        interrupt_status: 0,
        status: 15,
        queues: vec![queue; 3],
    };
    let streams = VsockState {
        guest_cid: 3,
        awake: true,
        next_host_port: 1030,
        connections: Vec::new(),
        resets: vec![(1, 1024)],
    };
    MachineState {
        memory_bytes: 512 << 20,
        clock_ns: 12_345,
        cpuid: vec![filled(9); 40],
        vcpus: vec![vcpu(1), vcpu(2)],
        devices: DevicesState {
            ioapic: IoapicState {
                id: 0,
                select: 0x12,
                table: [0x1_0000; LINES],
                pending: 1,
            },
            serial: [1, 2, 3, 4, 5, 6, 7, 8, 9],
            is_generation_asked: false,
            transports: vec![transport.clone(), transport],
            vsock: streams.encode(),
        },
    }
}

/// The rule of this file.
fn holds(bytes: &[u8]) -> bool {
    match MachineState::decode(bytes) {
        Ok(state) => state.encode() == bytes,
        Err(_) => true,
    }
}

#[test]
fn a_state_comes_back_whole() {
    let state = state();
    assert_eq!(MachineState::decode(&state.encode()), Ok(state));
}

#[test]
fn a_state_that_is_cut_short_or_goes_on_is_refused() {
    let mut bytes = state().encode();
    for length in 0..bytes.len() {
        let error = MachineState::decode(&bytes[..length]).unwrap_err();
        assert_eq!(error, StateError::Truncated, "{length}");
    }
    bytes.push(0);
    let outcome = MachineState::decode(&bytes);
    assert_eq!(outcome, Err(StateError::Rest { bytes: 1 }));
}

#[test]
fn any_other_byte_is_another_state_or_none() {
    let mut bytes = state().encode();
    for at in 0..bytes.len() {
        for change in [0x01, 0x02, 0x80, 0xff] {
            bytes[at] ^= change;
            assert!(holds(&bytes), "byte {at} with {change:#x}");
            bytes[at] ^= change;
        }
    }
}

#[test]
fn counts_beyond_their_limits_are_refused_before_anything_is_taken() {
    let limit = |change: &dyn Fn(&mut MachineState)| {
        let mut state = state();
        change(&mut state);
        MachineState::decode(&state.encode()).unwrap_err()
    };
    let what = |error: StateError| match error {
        StateError::Limit { what, .. } => what,
        other => panic!("{other}"),
    };
    let error = limit(&|state| state.cpuid = vec![filled(1); 257]);
    assert_eq!(what(error), "CPUID entries");
    let error = limit(&|state| state.vcpus = vec![vcpu(1); 33]);
    assert_eq!(what(error), "virtual processors");
    let error = limit(&|state| state.vcpus[0].msrs = vec![filled(1); 1025]);
    assert_eq!(what(error), "model-specific registers");
    let error = limit(&|state| state.vcpus[1].xsave = vec![0; (64 << 10) + 1]);
    assert_eq!(what(error), "bytes of extended state");
    let error = limit(&|state| state.devices.vsock = vec![0; (1 << 20) + 1]);
    assert_eq!(what(error), "bytes of streams");
    let error = limit(&|state| state.devices.transports[0].queues = vec![filled_queue(); 9]);
    assert_eq!(what(error), "queues");
    let none = limit(&|state| state.vcpus.clear());
    assert!(matches!(none, StateError::Device { .. }));
    let long = MachineState::decode(&vec![0; STATE_BYTES + 1]).unwrap_err();
    assert_eq!(what(long), "bytes");
}

fn filled_queue() -> QueueState {
    QueueState {
        max_size: 256,
        ..QueueState::default()
    }
}

/// A change of a state's bytes: where, how many of the old ones go, and what comes.
type Change = (prop::sample::Index, usize, Vec<u8>);

fn change() -> impl Strategy<Value = Change> {
    let bytes = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 1..5),
        2 => prop_oneof![0_u32..600, any::<u32>()].prop_map(|word| word.to_le_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..200),
    ];
    let gone = prop_oneof![4 => Just(None), 1 => (0_usize..200).prop_map(Some)];
    (any::<prop::sample::Index>(), gone, bytes).prop_map(|(at, gone, bytes)| {
        let gone = gone.unwrap_or(bytes.len());
        (at, gone, bytes)
    })
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    proptest::collection::vec(change(), 1..5)
}

fn changed(changes: Vec<Change>) -> TestCaseResult {
    let mut bytes = state().encode();
    for (at, gone, new) in changes {
        let at = at.index(bytes.len() + 1);
        let end = bytes.len().min(at + gone);
        bytes.splice(at..end, new);
    }
    prop_assert!(holds(&bytes));
    Ok(())
}

/// Any bytes, behind a beginning that is right as often as not.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let tail = proptest::collection::vec(any::<u8>(), 0..20_000);
    (0_usize..40, tail).prop_map(|(count, tail)| {
        let start = state().encode();
        [&start[..count], &tail].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_state_with_changes_is_one_or_is_refused(changes in changes()) {
        changed(changes)?;
    }

    #[test]
    fn any_bytes_are_refused_or_taken_whole(bytes in anything()) {
        prop_assert!(holds(&bytes));
        let (Ok(_) | Err(_)) = VsockState::decode(&bytes);
    }
}

#[test]
fn long_changes() {
    long::run("states with changes", changes(), changed);
}

#[test]
fn long_anything() {
    long::run("bytes", anything(), |bytes: Vec<u8>| {
        prop_assert!(holds(&bytes));
        Ok(())
    });
}

#[test]
fn long_streams() {
    let bytes = (0_usize..28, proptest::collection::vec(any::<u8>(), 0..300));
    let start = state().devices.vsock;
    long::run(
        "states of streams",
        bytes,
        |(count, tail): (usize, Vec<u8>)| {
            let bytes = [&start[..count], &tail].concat();
            if let Ok(state) = VsockState::decode(&bytes) {
                prop_assert_eq!(state.encode(), bytes);
            }
            Ok(())
        },
    );
}
