//! Port 1024 as the client of another project sees it: `smolvm`'s, from the package, against the agent that ships and
//! against a live machine.

use std::path::Path;
use std::process::{Command, Stdio};

use vmrepl_session::{EngineChoice, Purpose, Session, TemplateName, engine_for};

use crate::ground::{TEMPLATE, folder, home, root, skip};
use crate::lanes::{AgentLane, engine_choice, places_in};

#[test]
fn a_foreign_client_works_with_the_agent() {
    if !is_there() {
        return;
    }
    let (agent, guest) = (AgentLane::start().unwrap(), folder());
    conforms(&agent.socket(), guest.path());
}

#[test]
fn a_foreign_client_works_with_a_machine() {
    if !is_there() {
        return;
    }
    let places = places_in(home());
    let name = TemplateName::new(TEMPLATE).unwrap();
    let engine = engine_for(&places, engine_choice(), &name).unwrap();
    let session = Session::restore(&places, &engine, &name, Purpose::Freeze).unwrap();
    conforms(&session.info().socket, Path::new("/tmp"));
}

/// Whether Python has the client. The lane of KVM has no packages.
fn is_there() -> bool {
    let found = Command::new("python3")
        .args(["-c", "import smolvm.comm.vsock_channel"])
        .stderr(Stdio::null())
        .status();
    let is_there = found.is_ok_and(|status| status.success());
    if !is_there && engine_choice() != EngineChoice::Kvm {
        skip("a foreign client of port 1024: Python has no smolvm");
    }
    is_there
}

fn conforms(socket: &Path, guest: &Path) {
    let local = folder();
    let ended = Command::new("python3")
        .arg(root().join("tests/clients/files.py"))
        .args([socket, guest, local.path()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(said, "commands\nfiles\ntargets\nrefusals\ncrowd\n");
}
