//! Which pages a guest has written, and what becomes of them.

use std::os::unix::fs::FileExt as _;

use super::program::Program;
use super::tiny::{MEMORY_BYTES, Template, changed, end, kvm, word};
use crate::limits::MARKS_MAX;
use crate::machine::Machine;
use crate::processors::MachineEnd;

const PAGES: [u32; 6] = [0, 1, 63, 64, 700, 4095];

fn writes() -> Program {
    let mut program = Program::new();
    for page in PAGES {
        program = program.store(page * 4096 + 4092, 0x7700_0000 + page);
    }
    // Read and not written.
    program.copy(0x30_0000, PAGES[1] * 4096)
}

#[test]
fn exactly_the_pages_that_were_written_have_changed() {
    let Some(kvm) = kvm() else { return };
    let template = Template::new(&kvm, &writes().off());
    let mut machine = template.restore(&kvm);
    assert!(changed(&mut machine).is_empty(), "before it has run");
    assert_eq!(end(&mut machine), MachineEnd::PowerOff);
    let all = changed(&mut machine);
    let indices: Vec<u64> = all.iter().map(|(index, _)| *index).collect();
    assert_eq!(indices, PAGES.map(u64::from));
    for page in PAGES {
        assert_eq!(word(&all, page * 4096 + 4092), 0x7700_0000 + page);
    }
    assert!(changed(&mut machine).is_empty(), "once each");
}

#[test]
fn the_memory_file_is_never_changed() {
    let Some(kvm) = kvm() else { return };
    let template = Template::new(&kvm, &writes().off());
    let content = || {
        let mut bytes = vec![0; usize::try_from(MEMORY_BYTES).unwrap()];
        template.memory.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let before = content();
    let mut machine = template.restore(&kvm);
    end(&mut machine);
    machine.roll_back(0).unwrap();
    drop(machine);
    assert!(content() == before);
}

#[test]
fn a_way_back_gives_every_byte_back() {
    let Some(kvm) = kvm() else { return };
    let counter = 0x20_0000;
    let template = Template::new(&kvm, &Program::new().count_for_ever(counter));
    let mut machine = template.restore(&kvm);
    let beginning = machine.sum().unwrap();
    let run = |machine: &mut Machine| {
        machine.run().unwrap();
        let slab = tempfile::tempfile().unwrap();
        // Until it has counted.
        loop {
            machine.rest();
            let (_, frozen) = machine.freeze(&slab).unwrap();
            if frozen.pages > 0 {
                break (frozen.mark, machine.sum().unwrap());
            }
            machine.run().unwrap();
        }
    };
    let (first, one) = run(&mut machine);
    let (second, two) = run(&mut machine);
    assert!(one != beginning && two != one);
    assert_eq!(machine.roll_back(second).unwrap(), 0);
    assert_eq!(machine.roll_back(first).unwrap(), 1);
    assert!(machine.sum().unwrap() == one);
    machine.run().unwrap();
    machine.rest();
    machine.roll_back(0).unwrap();
    assert!(machine.sum().unwrap() == beginning);
    // A future that is no more.
    machine.roll_back(first).unwrap_err();
    let (_, three) = run(&mut machine);
    assert!(three != beginning);
}

#[test]
fn a_way_back_to_nowhere_loses_no_page() {
    let Some(kvm) = kvm() else { return };
    let template = Template::new(&kvm, &writes().off());
    let mut machine = template.restore(&kvm);
    end(&mut machine);
    machine.roll_back(99).unwrap_err();
    assert_eq!(changed(&mut machine).len(), PAGES.len());
}

#[test]
fn old_moments_are_forgotten_and_late_ones_are_right() {
    let Some(kvm) = kvm() else { return };
    let counter = 0x20_0000;
    let template = Template::new(&kvm, &Program::new().count_for_ever(counter));
    let mut machine = template.restore(&kvm);
    let mut moments = vec![(0, machine.sum().unwrap())];
    for _ in 0..3 * MARKS_MAX {
        machine.run().unwrap();
        machine.forget_old_marks();
        let frozen = loop {
            machine.rest();
            let slab = tempfile::tempfile().unwrap();
            let (_, frozen) = machine.freeze(&slab).unwrap();
            if frozen.pages > 0 {
                break frozen;
            }
            machine.run().unwrap();
            machine.forget_old_marks();
        };
        moments.push((frozen.mark, machine.sum().unwrap()));
    }
    let here = machine.sum().unwrap();
    let last = moments.pop().unwrap().0;
    let (known, forgotten): (Vec<_>, Vec<_>) = moments
        .iter()
        .partition(|(mark, _)| *mark + MARKS_MAX >= last);
    assert!(known.len() > 1 && forgotten.len() > MARKS_MAX);
    for (mark, _) in forgotten
        .iter()
        .filter(|(mark, _)| *mark + MARKS_MAX + 1 < last)
    {
        machine.roll_back(*mark).unwrap_err();
    }
    assert!(machine.sum().unwrap() == here, "nothing has happened");
    for (mark, sum) in known.iter().rev() {
        machine.roll_back(*mark).unwrap();
        assert!(machine.sum().unwrap() == *sum, "moment {mark}");
    }
    machine.run().unwrap();
    machine.rest();
}
