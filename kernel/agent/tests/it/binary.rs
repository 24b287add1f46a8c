//! The binary as it goes into a guest: built as for release, static and small.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::agent::{Agent, runner};

const TARGET: &str = "x86_64-unknown-linux-musl";

/// Builds it beside the tests' own files, so that no other build is waited for.
fn build() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("agent-binary");
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--package",
            "vmrepl-agent",
            "--profile",
            "agent",
        ])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&folder)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(status.success());
    folder.join(TARGET).join("agent/vmrepl-agent")
}

/// Types of the program headers: `p_type` of the ELF specification.
fn program_headers(elf: &[u8]) -> Vec<u32> {
    let half = |at: usize| usize::from(u16::from_le_bytes(elf[at..at + 2].try_into().unwrap()));
    let long = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap());
    assert_eq!(
        &elf[..6],
        b"\x7fELF\x02\x01",
        "not a 64-bit little-endian ELF file"
    );
    let (offset, size, count) = (usize::try_from(long(32)).unwrap(), half(54), half(56));
    let word = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().unwrap());
    (0..count)
        .map(|index| word(offset + index * size))
        .collect()
}

#[test]
fn it_is_static_and_small_on_disk_and_in_memory() {
    const PT_LOAD: u32 = 1;
    const PT_INTERP: u32 = 3;
    let path = build();
    let elf = std::fs::read(&path).unwrap();
    let headers = program_headers(&elf);
    assert!(headers.contains(&PT_LOAD));
    assert!(
        !headers.contains(&PT_INTERP),
        "it asks for a dynamic loader"
    );
    assert!(elf.len() < 3 * 1024 * 1024, "{} bytes", elf.len());

    let agent = Agent::with(path.to_str().unwrap(), |command| {
        command.arg("--runner").arg(runner());
    });
    let mut control = agent.control();
    let mut cells = agent.cells();
    cells.say(&json!({"code": "print('x' * 10_000_000)", "stream": true, "id": "a"}));
    assert_eq!(cells.events().1["status"], "ok");
    assert_eq!(cells.run("print('y' * 10_000_000)")["exit_code"], 0);
    let stats = control.ask(&json!({"op": "stats"}));
    assert!(
        stats["agent_rss_bytes"].as_u64().unwrap() < 2 * 1024 * 1024,
        "{stats}"
    );
}
