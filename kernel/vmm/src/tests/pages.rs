//! Which pages a guest has written, and what becomes of them.

use std::os::unix::fs::FileExt as _;

use super::program::Program;
use super::tiny::{MEMORY_BYTES, Template, changed, end, kvm, word};
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
