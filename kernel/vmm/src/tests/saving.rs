//! A machine that was saved and one that goes on from it.

use super::program::Program;
use super::tiny::{Template, changed, kvm, word};
use crate::devices::StateError;
use crate::layout::{GENERATION_ASKED, GENERATION_ID};
use crate::machine::{Machine, MachineError};
use crate::state::MachineState;

/// Runs a machine until it has written memory, however slow the host is.
fn state_once_it_counts(machine: &mut Machine) -> Vec<u8> {
    let slab = tempfile::tempfile().unwrap();
    loop {
        machine.run().unwrap();
        machine.rest();
        let (state, frozen) = machine.freeze(&slab).unwrap();
        if frozen.pages > 0 {
            return state;
        }
    }
}

/// Runs a program that sets what it can, until it only waits for its end.
fn saved() -> Option<(kvm_ioctls::Kvm, Template, Vec<u8>)> {
    let kvm = kvm()?;
    let program = Program::new()
        .write_msr(0xc000_0081, 0x0023_0010_0000_0000) // STAR
        .write_msr(0x277, 0x0606_0606_0606_0606) // PAT
        .store(0xfee0_00f0, 0x1ff) // the local APIC is on
        .store(0xfee0_0350, 0x1_0021)
        .store(0xfec0_0000, 0x14)
        .store(0xfec0_0010, 0x55)
        .out(0x3fb, 3)
        .out(0x3ff, 0xa5)
        .store(0xd000_0070, 3)
        .count_for_ever(0x20_0000);
    let template = Template::with_vcpus(&kvm, &program, 2);
    let mut machine = template.restore(&kvm);
    let state = state_once_it_counts(&mut machine);
    Some((kvm, template, state))
}

#[test]
fn a_restored_machine_has_the_saved_state() {
    let Some((kvm, template, state)) = saved() else {
        return;
    };
    let mut machine = template.restore_state(&kvm, &state).unwrap();
    let again = MachineState::decode(&machine.save().unwrap()).unwrap();
    let expected = MachineState::decode(&state).unwrap();
    for (one, other) in expected.vcpus.iter().zip(&again.vcpus) {
        assert_eq!(one.mp_state, other.mp_state);
        assert_eq!(one.regs, other.regs);
        assert_eq!(one.sregs, other.sregs);
        assert_eq!(one.xsave, other.xsave);
        assert_eq!(one.lapic, other.lapic);
        for (one, other) in one.msrs.iter().zip(&other.msrs) {
            assert_eq!(one, other);
        }
        assert_eq!(one.events, other.events);
    }
    assert_eq!(again, expected);
    // It had something to save.
    let star = expected.vcpus[0]
        .msrs
        .iter()
        .find(|entry| entry.index == 0xc000_0081);
    assert_eq!(star.unwrap().data, 0x0023_0010_0000_0000);
    assert_eq!(expected.devices.ioapic.table[2], 0x1_0055 & 0xffff);
    assert_eq!(expected.devices.serial[8], 0xa5);
    assert_eq!(expected.devices.transports[0].status, 3);
}

/// What stands at the generation identifier of a machine that was restored from a guest's state and ran on.
fn identifier_after(asks: bool) -> Option<[u32; 2]> {
    let kvm = kvm()?;
    let place = u32::try_from(GENERATION_ID).unwrap();
    let mut program = Program::new();
    if asks {
        program = program.out(GENERATION_ASKED, 1);
    }
    let template = Template::new(&kvm, &program.count_for_ever(0x20_0000));
    let mut machine = template.restore(&kvm);
    // It counts, so it has come past its question.
    let state = state_once_it_counts(&mut machine);
    let decoded = MachineState::decode(&state).unwrap();
    assert_eq!(decoded.devices.is_generation_asked, asks);
    let mut copy = template.restore_state(&kvm, &state).unwrap();
    let rested = copy.save().unwrap();
    copy.run().unwrap();
    copy.rest();
    let first = changed(&mut copy);
    copy.roll_back(0).unwrap();
    assert!(copy.save().unwrap() == rested, "going back is no news yet");
    copy.run().unwrap();
    copy.rest();
    let second = changed(&mut copy);
    let at = |changed: &[(u64, Vec<u8>)]| {
        let is_there = changed
            .iter()
            .any(|(page, _)| *page == GENERATION_ID / 4096);
        if is_there { word(changed, place) } else { 0 }
    };
    Some([at(&first), at(&second)])
}

#[test]
fn a_copy_that_asks_has_a_generation_of_its_own() {
    let Some([first, second]) = identifier_after(true) else {
        return;
    };
    assert!(first != 0 && second != 0 && first != second);
    // A guest that does not ask gets no page written.
    assert_eq!(identifier_after(false), Some([0, 0]));
}

#[test]
fn a_state_that_lies_is_refused_before_it_runs() {
    let Some((kvm, template, state)) = saved() else {
        return;
    };
    let good = MachineState::decode(&state).unwrap();
    let outcome = |change: &dyn Fn(&mut MachineState)| {
        let mut state = good.clone();
        change(&mut state);
        template.restore_state(&kvm, &state.encode()).map(drop)
    };
    let lies: [&dyn Fn(&mut MachineState); 9] = [
        &|state| state.memory_bytes *= 2,
        &|state| state.memory_bytes = 1 << 40,
        &|state| state.memory_bytes = u64::MAX,
        &|state| state.memory_bytes -= 1,
        &|state| {
            state.vcpus[0].xsave.pop();
        },
        &|state| state.vcpus[0].msrs[3].index = 0x7777_7777,
        &|state| state.vcpus[0].sregs.cr0 = 1 << 31,
        &|state| state.devices.transports[0].status = 4,
        &|state| state.devices.vsock.clear(),
    ];
    for (number, lie) in lies.iter().enumerate() {
        assert!(outcome(lie).is_err(), "lie {number}");
    }
    let feature = outcome(&|state| {
        for entry in &mut state.cpuid {
            if (entry.function, entry.index) == (7, 0) {
                // A feature that no host has here: HLE is never given.
                entry.ebx |= 1 << 4;
            }
        }
    });
    let is_named = matches!(&feature, Err(MachineError::Features { names }) if names.len() == 1);
    let has_it = feature.is_ok();
    assert!(is_named || has_it, "{feature:?}");
    let cut = template.restore_state(&kvm, &state[..state.len() - 1]);
    assert!(matches!(
        cut,
        Err(MachineError::State(StateError::Truncated))
    ));
}
