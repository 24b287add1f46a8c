//! A machine behind the jail's door: all that it does is allowed there.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use super::program::Program;
use super::tiny::{Template, end, kvm};
use crate::processors::MachineEnd;
use crate::vsock::Greeting;
use crate::worker::jail;

#[test]
fn a_machine_lives_and_ends_in_the_jail() {
    let Some(kvm) = kvm() else { return };
    let counter = 0x20_0000;
    let mut program = Program::new();
    for byte in *b"a console\n" {
        program = program.out(0x3f8, byte);
    }
    let program = program.copy(0xd000_0100, counter + 64).count(counter);
    let template = Template::with_vcpus(&kvm, &program.off(), 2);
    let slab = tempfile::tempfile().unwrap();
    let laid = tempfile::tempfile().unwrap();
    let parts = super::tiny::parts(&template.memory);
    let console = parts.console.try_clone().unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        jail::enter().unwrap();
        let claims = Vec::new();
        let saved = crate::Saved {
            state: &template.state,
            laid: &laid,
            laid_pages: 0,
            hot: &[],
            purpose: crate::Purpose::Freeze,
        };
        let mut phases = crate::Phases::default();
        let restored = crate::Machine::restore(&kvm, None, &saved, parts, claims, &mut phases);
        let mut machine = restored.unwrap();
        machine.open(9, theirs, Greeting::default());
        machine.serve_sockets();
        assert_eq!(end(&mut machine), MachineEnd::PowerOff);
        let (_, frozen) = machine.freeze(&slab).unwrap();
        assert_eq!(frozen.pages, 1);
        assert_eq!(machine.roll_back(0).unwrap(), 1);
        drop(machine);
    });
    thread.join().unwrap();
    // The stream closes with the machine.
    ours.write_all(b"x").unwrap_err();
    assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0);
    let mut said = [0; 10];
    std::os::unix::fs::FileExt::read_exact_at(&console, &mut said, 0).unwrap();
    assert_eq!(&said, b"a console\n");
}
