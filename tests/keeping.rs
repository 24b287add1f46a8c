//! What is kept of a session: when cells leave a checkpoint, what a failure costs, what goes to save room, and what may not.

use rustix::process::Signal;
use serde_json::Value;

use crate::ground::TEMPLATE;
use crate::homes::Home;

#[test]
fn a_failure_can_be_taken_back_and_looked_at() {
    let home = Home::new();
    home.cell("t", "x = 1").says("");
    let failed = home
        .run(&["-s", "t", "--on-failure", "rollback", "-c", "x = 2\n1/0"])
        .finish();
    failed.fails(1, &["kept as the branch 2", "stands at cell 1 again"]);
    home.cell("t", "print(x)").says("1\n");
    home.command(&["goto", "t", "2"]);
    home.cell("t", "print(x)").says("2\n");
    // One that ends well stays.
    home.run(&["-s", "t", "--on-failure", "rollback", "-c", "x = 3"])
        .finish()
        .says("");
    home.cell("t", "print(x)").says("3\n");
}

#[test]
fn without_a_checkpoint_for_each_cell_the_last_state_is_kept() {
    let home = Home::new();
    home.run(&["-s", "t", "--snapshot", "off", "-c", "x = 1"])
        .finish()
        .says("");
    home.run(&["-s", "t", "--snapshot", "off", "-c", "x += 1"])
        .finish()
        .says("");
    home.cell("t", "print(x)").says("2\n");
    // Killed while only the machine had it: what it did is lost, and said to be.
    let mut running = home
        .run(&[
            "-s",
            "t",
            "--snapshot",
            "off",
            "-c",
            "x = 9; print('begun', flush=True); import time; time.sleep(600)",
        ])
        .start_silent();
    let mut said = [0; 5];
    std::io::Read::read_exact(&mut running.take_stdout(), &mut said).unwrap();
    running.signal(Signal::KILL);
    running.finish();
    let after = home.cell("t", "print(x)");
    assert_eq!(after.text(), "2\n", "{after}");
    assert!(after.stderr.contains("cell 4 of t was running"), "{after}");
}

#[test]
fn room_is_made_and_what_is_needed_stays() {
    let home = Home::new();
    home.cell("t", "x = 1").says("");
    home.cell("t", "b = bytes(range(256)) * 4000").says("");
    home.command(&["undo", "t"]);
    home.cell("t", "c = bytes(range(255, -1, -1)) * 4000")
        .says("");
    home.cell("pinned", "y = 1; z = bytes(range(256)) * 999")
        .says("");
    home.cell("pinned", "y = 2").says("");
    home.command(&["sessions", "pin", "pinned"])
        .says("session pinned is pinned\n");
    let sizes = || -> Vec<(String, u64)> {
        let told = home.command(&["sessions", "--json"]).text();
        let rows: Vec<Value> = serde_json::from_str(&told).unwrap();
        rows.iter()
            .map(|row| {
                (
                    row["name"].as_str().unwrap().to_owned(),
                    row["disk_bytes"].as_u64().unwrap(),
                )
            })
            .collect()
    };
    let before = sizes();
    assert!(
        before.iter().all(|(_, bytes)| *bytes > 100_000),
        "{before:?}"
    );
    let plan = home.command(&["gc", "--budget", "1K", "--dry-run"]);
    assert!(
        plan.text()
            .contains("session t would lose the states after 2 cells"),
        "{plan}"
    );
    assert_eq!(sizes(), before);
    let done = home.command(&["gc", "--budget", "1K"]);
    assert!(
        done.text()
            .contains("session t lost the states after 2 cells"),
        "{done}"
    );
    assert!(done.stderr.contains("above the budget"), "{done}");
    let after = sizes();
    let of = |sizes: &[(String, u64)], name: &str| {
        sizes.iter().find(|(known, _)| known == name).unwrap().1
    };
    assert!(of(&after, "t") < of(&before, "t"), "{before:?} {after:?}");
    assert_eq!(of(&after, "pinned"), of(&before, "pinned"));
    // Where they stand is there, and what they said; the way there is not.
    home.cell("t", "print(len(c), x)").says("1024000 1\n");
    home.command(&["goto", "t", "2"])
        .fails(3, &["it left no checkpoint"]);
    home.command(&["goto", "pinned", "1"]);
    assert!(home.command(&["show", "t@2"]).text().contains("range(256)"));
    home.command(&["gc", "--budget", "much"])
        .fails(2, &["not a size"]);
}

#[test]
fn a_template_that_sessions_grow_on_is_not_removed() {
    let home = Home::new();
    home.cell("t", "x = 1").says("");
    home.command(&["goto", "t", "0"]);
    home.command(&["templates", "rm", TEMPLATE])
        .fails(125, &["is kept, since others depend on it: t"]);
    home.cell("t", "x = 2; print(x)").says("2\n");
}

/// Far from its template a checkpoint is a base of its own, and everything goes on as before.
#[test]
fn much_data_is_as_quick_to_come_back_to_as_little() {
    let home = Home::new();
    home.cell("t", "x = 1").says("");
    home.cell(
        "t",
        "data = bytearray(b'0123456789abcdef') * (5 << 20); data[77] = 1; x = 2",
    )
    .says("");
    let size = || {
        let told = home.command(&["sessions", "--json"]).text();
        let rows: Vec<Value> = serde_json::from_str(&told).unwrap();
        rows[0]["disk_bytes"].as_u64().unwrap()
    };
    // A base: the template is in it, too. But once, not a layer and a base.
    let with_data = size();
    assert!(
        (80_000_000..260_000_000).contains(&with_data),
        "{with_data}"
    );
    home.cell("t", "data[78] = 2; x = 3").says("");
    home.cell("t", "print(x, len(data), data[77], data[78], data[79])")
        .says("3 83886080 1 2 102\n");
    assert!(size() - with_data < 8_000_000, "{} {with_data}", size());
    home.command(&["undo", "t", "2"]).says(
        "t stands at cell 2: data = bytearray(b'0123456789abcdef') * (5 << 20); data[77]  ...\n",
    );
    home.command(&["fork", "t", "u"]).says("u begins at t@2\n");
    home.cell("u", "print(x, data[77], data[78])")
        .says("2 1 101\n");
    home.command(&["undo", "t"])
        .says("t stands at cell 1: x = 1\n");
    home.cell("t", "print(x, 'data' in globals())")
        .says("1 False\n");
    home.command(&["gc"]);
    home.command(&["goto", "t", "4"]);
    home.cell("t", "print(x, data[78])").says("3 2\n");
    home.command(&["sessions", "rm", "t"]);
    home.cell("u", "print(x, data[77])").says("2 1\n");
}
