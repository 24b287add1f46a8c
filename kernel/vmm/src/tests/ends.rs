//! How machines end, and what does not end them.

use std::sync::mpsc;
use std::time::Duration;

use super::program::Program;
use super::tiny::{Template, changed, end, kvm, run, word};
use crate::processors::MachineEnd;

const RESULT: u32 = 0x20_0000;

#[test]
fn ports_end_the_machine() {
    let Some(kvm) = kvm() else { return };
    let (end, _) = run(&kvm, &Program::new().off());
    assert_eq!(end, MachineEnd::PowerOff);
    let reset = Program::new().out(0x64, 0xfe).count_for_ever(RESULT);
    let (end, _) = run(&kvm, &reset);
    assert_eq!(end, MachineEnd::Reset);
    // Others do not.
    let others = Program::new()
        .out(0x64, 0xff)
        .out(0x600, 0x14)
        .out(0x600, 0x3c)
        .out(0x601, 0x34)
        .out(0xcf9, 6)
        .store(RESULT, 7)
        .off();
    let (end, mut machine) = run(&kvm, &others);
    assert_eq!(end, MachineEnd::PowerOff);
    assert_eq!(word(&changed(&mut machine), RESULT), 7);
}

#[test]
fn a_triple_fault_ends_the_machine() {
    let Some(kvm) = kvm() else { return };
    let (end, _) = run(&kvm, &Program::new().fault());
    assert_eq!(end, MachineEnd::Shutdown);
}

#[test]
fn features_of_kvm_that_a_guest_is_not_told_of_are_not_there() {
    let Some(kvm) = kvm() else { return };
    // The clock is (KVM's documentation, x86/msr.rst); polling while idle and the time stolen are not.
    let clock = Program::new().write_msr(0x4b56_4d01, 0);
    let (end, _) = run(&kvm, &clock.clone().off());
    assert_eq!(end, MachineEnd::PowerOff);
    for hidden in [0x4b56_4d05, 0x4b56_4d03] {
        let (end, _) = run(&kvm, &clock.clone().write_msr(hidden, 0).off());
        assert_eq!(end, MachineEnd::Shutdown, "{hidden:#x}");
    }
}

#[test]
fn what_belongs_to_nobody_reads_as_ones_and_takes_anything() {
    let Some(kvm) = kvm() else { return };
    let nowhere = [
        0x0100_0000,
        0x4000_0000,
        0xcfff_fffc,
        0xd000_2000,
        0xffff_fff0,
    ];
    let mut program = Program::new();
    for (address, to) in nowhere.into_iter().zip((RESULT..).step_by(4)) {
        program = program.store(address, 0x1234).copy(address, to);
    }
    let program = program.in_to(0x0070, RESULT + 64).in_to(0x3fd, RESULT + 65);
    let (end, mut machine) = run(&kvm, &program.off());
    assert_eq!(end, MachineEnd::PowerOff);
    let changed = changed(&mut machine);
    for to in (RESULT..).step_by(4).take(nowhere.len()) {
        assert_eq!(word(&changed, to), u32::MAX);
    }
    // The serial port's line status: it takes bytes.
    assert_eq!(word(&changed, RESULT + 64) & 0xffff, 0x60ff);
}

#[test]
fn an_interrupt_to_nobody_is_lost() {
    let Some(kvm) = kvm() else { return };
    let mut program = Program::new();
    // First with a local APIC, then without any (Intel SDM volume 3, 11.4.3).
    for base in [0xfee0_0900, 0xfee0_0100] {
        program = program.write_msr(0x1b, base);
        // Line 4, the serial port's, goes to the local APIC 77; to a logical one; to all; as other kinds.
        for (upper, lower) in [
            (77 << 24, 0x30),
            (0, 0x830),
            (0xff << 24, 0x30),
            (0xff << 24, 0x130),
            (77 << 24, 0x530),
        ] {
            program = program
                .store(0xfec0_0000, 0x19)
                .store(0xfec0_0010, upper)
                .store(0xfec0_0000, 0x18)
                .store(0xfec0_0010, lower)
                // The port wants its interrupt each time that it is enabled.
                .out(0x3f9, 0)
                .in_to(0x3fa, RESULT)
                .out(0x3f9, 2);
        }
    }
    let (end, _) = run(&kvm, &program.off());
    assert_eq!(end, MachineEnd::PowerOff);
}

#[test]
fn a_driver_that_breaks_its_device_ends_the_machine_by_name() {
    let Some(kvm) = kvm() else { return };
    let block = 0xd000_0000;
    let mut program = Program::new();
    for (register, value) in [
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x80, 0xf000_0000),
        (0x44, 1),
        (0x70, 15),
    ] {
        program = program.store(block + register, value);
    }
    let (end, _) = run(&kvm, &program.count_for_ever(RESULT));
    assert!(matches!(end, MachineEnd::Broken(_)), "{end:?}");
}

#[test]
fn an_endless_loop_comes_to_rest_and_goes_on() {
    let Some(kvm) = kvm() else { return };
    // One that never leaves, and one that always does.
    let exits = Program::new().out(0x80, 1).again_from(0);
    for program in [Program::new().again_from(0), exits] {
        let template = Template::with_vcpus(&kvm, &program, 2);
        let mut machine = template.restore(&kvm);
        let (said, rested) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            for _ in 0..20 {
                machine.run().unwrap();
                machine.rest();
            }
            machine.run().unwrap();
            said.send(()).unwrap();
            // While it runs.
            drop(machine);
            said.send(()).unwrap();
        });
        for _ in 0..2 {
            rested.recv_timeout(Duration::from_secs(30)).unwrap();
        }
        thread.join().unwrap();
    }
}

#[test]
fn an_ended_machine_stays_ended() {
    let Some(kvm) = kvm() else { return };
    let (first, mut machine) = run(&kvm, &Program::new().off());
    assert_eq!(end(&mut machine), first);
}
