//! Restores of one template share its memory, and must share neither chance nor time.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::ground::{DATA_TEMPLATE, TEMPLATE, count, has_template};
use crate::process::Run;

const CODE: &str = "import os, random, secrets, socket, ssl, tempfile, time, uuid
print('time', time.time())
print('urandom', os.urandom(16).hex())
print('uuid4', uuid.uuid4())
print('random', random.random())
print('ssl', ssl.RAND_bytes(16).hex())
print('secrets', secrets.token_hex(16))
print('temporary', tempfile.mktemp())
print('boot', open('/proc/sys/kernel/random/uuid').read().strip())
print('hostname', socket.gethostname())
_ = socket.getaddrinfo(socket.gethostname(), 80)";

/// What numpy adds: its global generator, and a new one.
const NUMPY_CODE: &str = "
import numpy
print('numpy', numpy.random.random())
print('normal', numpy.random.standard_normal())
print('generator', numpy.random.default_rng().random())";

#[test]
fn no_two_restores_draw_the_same() {
    let mut seen = HashMap::new();
    for number in 0..count(20, 200) {
        differs(&mut seen, number, Run::code(CODE), 8);
    }
}

#[test]
fn no_two_restores_of_the_data_stack_draw_the_same() {
    if !has_template(DATA_TEMPLATE) {
        return;
    }
    let mut seen = HashMap::new();
    let code = format!("{CODE}{NUMPY_CODE}");
    for number in 0..count(5, 200) {
        let run = Run::on(DATA_TEMPLATE, ["-c", &code]);
        differs(&mut seen, number, run, 11);
    }
}

fn differs(seen: &mut HashMap<String, usize>, number: usize, run: Run, drawn: usize) {
    let before = now();
    let ended = run.finish();
    let after = now();
    assert_eq!(ended.exit(), 0, "{ended}");
    let text = ended.text();
    let mut lines = text.lines();
    let clock = lines
        .next()
        .and_then(|line| line.strip_prefix("time "))
        .unwrap();
    let clock: f64 = clock.parse().unwrap();
    assert!(
        clock > before - 1.0 && clock < after + 1.0,
        "restore {number}: the guest says {clock}, the host {before} to {after}"
    );
    assert_eq!(lines.clone().count(), drawn, "{ended}");
    for line in lines {
        let earlier = seen.insert(line.to_owned(), number);
        assert_eq!(earlier, None, "restore {number} repeats: {line}");
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

/// What `doctor` promises of copies, under both policies.
#[test]
fn the_doctor_finds_copies_as_they_should_be() {
    for (policy, of_the_user) in [
        ("keep", "goes on as it was seeded"),
        ("fresh", "each copy its own"),
    ] {
        let args = [
            "doctor",
            "--copies",
            "--json",
            "--rng",
            policy,
            "--template",
            TEMPLATE,
        ];
        let ended = Run::bare(args).finish();
        let told: Value = serde_json::from_str(&ended.text()).unwrap();
        let hazards = told["hazards"].as_array().unwrap();
        let broken = hazards.iter().filter(|hazard| hazard["holds"] != true);
        let broken: Vec<&Value> = broken.collect();
        assert!(
            ended.exit() == 0 && broken.is_empty(),
            "{broken:?}: {ended}"
        );
        assert!(hazards.len() > 15, "{told}");
        let seeded = hazards
            .iter()
            .find(|hazard| hazard["name"] == "random, seeded by the user")
            .unwrap();
        assert_eq!(seeded["wanted"], of_the_user);
    }
}
