//! Which engine is taken, what is said when it cannot be, and one name for a template of each. Nothing here
//! needs a KVM that works; where one does, other answers are right, and asked for.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::{Value, json};
use vmrepl_machine::Engine;
use vmrepl_session::EngineKind;

use crate::disk::Copy;
use crate::ground::{TEMPLATE, folder};
use crate::process::{Ended, Run, VMREPL};

const NOBODY: &str = "65534";

fn at(home: &Path, args: &[&str]) -> Ended {
    Run::bare(args).env("VMREPL_HOME", home).finish()
}

/// What the doctor says of engines.
fn facts(home: &Path) -> Value {
    let ended = at(home, &["doctor", "--json"]);
    let mut said: Value = serde_json::from_slice(&ended.stdout).unwrap();
    said["engine"].take()
}

fn standing(home: &Path) -> String {
    let facts = facts(home);
    facts["kvm"]["standing"].as_str().unwrap().to_owned()
}

#[test]
fn the_doctor_has_the_facts() {
    let home = folder();
    let facts = facts(home.path());
    let standing = facts["kvm"]["standing"].as_str().unwrap();
    let found = facts["qemu"]["found"].as_bool().unwrap();
    // No note lies in a fresh home.
    let expected = match (standing, found) {
        ("not_probed", false) => json!("kvm"),
        ("no_device" | "denied" | "no_hardware" | "not_probed", true) => json!("qemu"),
        ("no_device" | "denied" | "no_hardware", false) => json!(null),
        _ => panic!("{facts}"),
    };
    assert_eq!(facts["auto"], expected, "{facts}");
    assert!(facts["kvm"]["why"].as_str().unwrap().contains("/dev/kvm"));
    let text = at(home.path(), &["doctor"]).text();
    for check in ["engine", "kvm", "qemu"] {
        let told = text.lines().filter(|line| line[6..].starts_with(check));
        assert!(told.count() >= 1, "{check}: {text}");
    }
}

#[test]
fn kvm_by_name_is_taken_or_refused_with_a_way_out() {
    let home = folder();
    let ended = at(
        home.path(),
        &["--engine", "kvm", "--template", TEMPLATE, "-c", "1"],
    );
    assert_eq!(ended.text(), "", "{ended}");
    match standing(home.path()).as_str() {
        "no_device" | "denied" => {
            ended.fails(
                125,
                &["the engine kvm", "/dev/kvm", "hint:", "--engine qemu"],
            );
        }
        _ => ended.fails(3, &["there is no template", "hint:", "vmrepl prepare"]),
    }
}

#[test]
fn a_user_outside_the_group_is_told_how_to_join() {
    if !rustix::process::geteuid().is_root() {
        // Whoever runs this is such a user, or is in the group: see the test above.
        return;
    }
    let home = folder();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = home.path().join("vmrepl");
    fs::copy(VMREPL, &program).unwrap();
    let user = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
    let program = program.to_str().unwrap();
    for args in [
        &["--engine", "kvm", "--template", TEMPLATE, "-c", "1"][..],
        &["prepare", TEMPLATE, "--engine", "kvm"],
    ] {
        let words = user.iter().chain([&program]).chain(args);
        let ended = Run::of("setpriv", words)
            .env("VMREPL_HOME", home.path().join("home"))
            .finish();
        if ended.stderr.contains("Permission denied") {
            ended.fails(125, &["/dev/kvm", "hint:", "usermod -aG kvm"]);
        } else {
            // There is none, or everybody may use it.
            assert!([3, 125].contains(&ended.exit()), "{ended}");
            break;
        }
    }
}

/// What a probe would have left on this host: the device's facts, when this user may open it.
fn note(verdict: &str) -> Option<Value> {
    let device = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    let device = device.and_then(|file| file.metadata()).ok()?;
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    Some(json!({
        "verdict": verdict,
        "reason": "it was too tired",
        "probed_s": 1,
        "boot_id": boot_id.trim(),
        "device": device.dev(),
        "inode": device.ino(),
        "program": env!("CARGO_PKG_VERSION"),
        "state": Engine::kvm("/proc/self/exe".into(), Vec::new()).compat(),
    }))
}

#[test]
fn a_note_of_this_boot_counts_and_no_other() {
    let home = folder();
    let before = standing(home.path());
    let path = home.path().join("store/kvm.json");
    let Some(note) = note("works") else {
        assert!(["no_device", "denied"].contains(&before.as_str()));
        return;
    };
    let keep = |note: &Value| fs::write(&path, note.to_string()).unwrap();
    keep(&note);
    assert_eq!(standing(home.path()), "works");
    assert_eq!(facts(home.path())["auto"], "kvm");
    for (field, other) in [
        ("boot_id", json!("of the boot before")),
        ("inode", json!(0)),
        ("program", json!("0.0.0")),
        ("state", json!("kvm 0")),
        ("verdict", json!("perhaps")),
    ] {
        let mut stale = note.clone();
        stale[field] = other;
        keep(&stale);
        assert_eq!(standing(home.path()), before, "{field}");
    }
    fs::write(&path, "{").unwrap();
    assert_eq!(standing(home.path()), before);
    let mut fails = note;
    fails["verdict"] = json!("fails");
    keep(&fails);
    let facts = facts(home.path());
    assert_eq!(facts["kvm"]["standing"], "fails");
    assert_ne!(facts["auto"], "kvm");
    let text = at(home.path(), &["doctor"]).text();
    assert!(text.contains("it was too tired"), "{text}");
    assert!(text.contains("vmrepl prepare --engine kvm"), "{text}");
}

/// The template's engine in a copy, and the other one.
fn engines(copy: &Copy) -> (EngineKind, EngineKind) {
    let kvm = copy.store().join("names/templates-kvm").join(TEMPLATE);
    if kvm.exists() {
        (EngineKind::Kvm, EngineKind::Qemu)
    } else {
        (EngineKind::Qemu, EngineKind::Kvm)
    }
}

#[test]
fn auto_takes_the_engine_that_the_template_is_for() {
    let copy = Copy::new();
    let (own, other) = engines(&copy);
    let run = ["--engine", "auto", "--template", TEMPLATE, "-c", "1 + 1"];
    at(copy.home(), &run).says("2\n");
    if own == EngineKind::Qemu {
        // KVM may work as well as it likes.
        if let Some(note) = note("works") {
            fs::write(copy.store().join("kvm.json"), note.to_string()).unwrap();
        }
        at(copy.home(), &run).says("2\n");
        let verdict = note("fails");
        if let Some(note) = verdict {
            fs::write(copy.store().join("kvm.json"), note.to_string()).unwrap();
        }
        at(copy.home(), &run).says("2\n");
    }
    let ended = at(
        copy.home(),
        &["--engine", other.name(), "--template", TEMPLATE, "-c", "1"],
    );
    if ended.exit() == 3 {
        let missing = format!("for the engine {other}; there is one for {own}");
        let made = format!("vmrepl prepare {TEMPLATE} --engine {other}");
        ended.fails(3, &[&missing, "hint:", &made, "leave --engine away"]);
    } else {
        ended.fails(125, &["could not use the engine", "hint:"]);
    }
}

#[test]
fn one_name_is_removed_for_one_engine_or_for_all() {
    let copy = Copy::new();
    let (own, other) = engines(&copy);
    let names = |kind| match kind {
        EngineKind::Kvm => copy.store().join("names/templates-kvm"),
        EngineKind::Qemu => copy.store().join("names/templates"),
    };
    let add = || {
        fs::create_dir_all(names(other)).unwrap();
        fs::copy(names(own).join(TEMPLATE), names(other).join(TEMPLATE)).unwrap();
    };
    add();
    let listed = at(copy.home(), &["templates"]).text();
    assert_eq!(listed.matches(TEMPLATE).count(), 2, "{listed}");
    let verified = at(copy.home(), &["verify", TEMPLATE]);
    assert_eq!(verified.text().matches("sound").count(), 2, "{verified}");
    let remove = ["templates", "rm", TEMPLATE];
    let one = at(
        copy.home(),
        &[&remove[..], &["--engine", other.name()]].concat(),
    );
    one.says(&format!("template {TEMPLATE} for {other} is gone\n"));
    assert!(!names(other).join(TEMPLATE).exists());
    assert!(names(own).join(TEMPLATE).exists());
    add();
    let all = at(copy.home(), &remove);
    all.says(&format!(
        "template {TEMPLATE} for kvm is gone\ntemplate {TEMPLATE} for qemu is gone\n"
    ));
    let left = copy.store().join("snapshots").read_dir().unwrap();
    assert_eq!(left.count(), 0);
    at(copy.home(), &remove).fails(3, &["there is no template", "hint:"]);
}

#[test]
fn an_exported_template_comes_back_for_its_engine() {
    let (copy, elsewhere, files) = (Copy::new(), folder(), folder());
    let (own, _) = engines(&copy);
    let file = files.path().join("template");
    let file = file.to_str().unwrap();
    let ended = at(copy.home(), &["templates", "export", TEMPLATE, file]);
    assert_eq!(ended.exit(), 0, "{ended}");
    let ended = at(
        elsewhere.path(),
        &["templates", "import", file, "--name", "other"],
    );
    assert_eq!(
        ended.text(),
        format!("template other is ready for {own}\n"),
        "{ended}"
    );
    let run = ["--engine", own.name(), "--template", "other", "-c", "1 + 1"];
    at(elsewhere.path(), &run).says("2\n");
}
