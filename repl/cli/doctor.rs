//! `vmrepl doctor`: what this host has, what follows, how to mend it.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use vmrepl_session::{EngineChoice, Template, find_engine, jail_facts};

use crate::out;
use crate::places::Environment;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Something works less well or is not there yet.
    Warn,
    /// Cells cannot run.
    Fail,
}

/// One check: what was found, what follows from it, what to do.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            fix: None,
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Warn,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Fail,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }
}

/// Runs all checks. Exit code 0 when cells can run, else 1.
pub(crate) fn doctor(as_json: bool, environment: &Environment) -> Result<ExitCode> {
    let mut checks = vec![engine(environment), kvm()];
    checks.extend(jail());
    checks.push(ptrace());
    checks.push(writable("folder of machines", &environment.places.run));
    checks.push(writable("store", &environment.places.store));
    checks.push(templates(environment));
    checks.extend(tools());
    let healthy = checks.iter().all(|check| check.verdict != Verdict::Fail);
    if as_json {
        out::line(&serde_json::to_string(
            &serde_json::json!({"healthy": healthy, "checks": checks}),
        )?)?;
    } else {
        for check in &checks {
            let mark = match check.verdict {
                Verdict::Ok => "ok  ",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            out::line(&format!("{mark}  {:<20} {}", check.name, check.found))?;
            if let Some(fix) = &check.fix {
                out::line(&format!("      {:<20} -> {fix}", ""))?;
            }
        }
    }
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn engine(environment: &Environment) -> Check {
    match find_engine(&environment.places, EngineChoice::Auto) {
        Ok(engine) => Check::ok(
            "engine",
            format!(
                "{} ({}): emulation, runs anywhere",
                engine.name(),
                engine.compat()
            ),
        ),
        Err(error) => Check::fail(
            "engine",
            out::chain(&error),
            "install QEMU: apt-get install qemu-system-x86",
        ),
    }
}

fn kvm() -> Check {
    let name = "hardware";
    if !Path::new("/dev/kvm").exists() {
        return Check::ok(name, "no /dev/kvm; not needed: machines are emulated");
    }
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |flag: &str| flags.split_ascii_whitespace().any(|word| word == flag);
    if has("vmx") || has("svm") {
        Check::ok(
            name,
            "/dev/kvm with hardware virtualisation; this version emulates all the same",
        )
    } else {
        Check::ok(
            name,
            "/dev/kvm without vmx or svm in the CPU flags; machines are emulated",
        )
    }
}

fn jail() -> Vec<Check> {
    let fix = "a host Linux with Landlock (5.13 for files, 6.7 for TCP) jails QEMU more tightly";
    jail_facts()
        .into_iter()
        .map(|fact| {
            if fact.holds {
                Check::ok("jail", format!("{} holds", fact.name))
            } else {
                Check::warn(
                    "jail",
                    format!(
                        "{} is not there; seccomp and no-new-privileges stand",
                        fact.name
                    ),
                    fix,
                )
            }
        })
        .collect()
}

fn ptrace() -> Check {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    match scope.trim() {
        "2" | "3" => Check::warn(
            "yama",
            format!(
                "ptrace_scope is {}: pages of a live machine cannot be read back",
                scope.trim()
            ),
            "sysctl kernel.yama.ptrace_scope=1",
        ),
        "" => Check::ok(
            "yama",
            "not in this Linux; nothing forbids reading a machine's pages",
        ),
        other => Check::ok("yama", format!("ptrace_scope is {other}")),
    }
}

fn writable(name: &'static str, folder: &Path) -> Check {
    let probe = folder.join(format!(".probe.{}", std::process::id()));
    let tried = fs::create_dir_all(folder).and_then(|()| fs::write(&probe, b"x"));
    drop(fs::remove_file(&probe));
    if let Err(error) = tried {
        let fix = "make it writable, or set VMREPL_HOME (or VMREPL_RUN_DIR) to another folder";
        return Check::fail(name, format!("{}: {error}", folder.display()), fix);
    }
    let free = rustix::fs::statvfs(folder)
        .map_or(0, |facts| facts.f_bavail.saturating_mul(facts.f_frsize));
    let found = format!(
        "{} is writable, {} GB free",
        folder.display(),
        free / 1_000_000_000
    );
    if free < 3_000_000_000 {
        return Check::warn(name, found, "a template needs up to 3 GB while it is made");
    }
    Check::ok(name, found)
}

fn templates(environment: &Environment) -> Check {
    let name = "templates";
    match Template::all(&environment.places) {
        Err(error) => Check::fail(name, out::chain(&error), "vmrepl verify"),
        Ok(all) if all.is_empty() => Check::warn(name, "none yet", "vmrepl prepare"),
        Ok(all) => {
            let damaged: Vec<_> = all
                .iter()
                .filter(|(_, t)| t.is_err())
                .map(|(name, _)| name.as_str())
                .collect();
            if damaged.is_empty() {
                let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
                Check::ok(name, names.join(", "))
            } else {
                Check::warn(
                    name,
                    format!("damaged: {}", damaged.join(", ")),
                    "vmrepl prepare --force NAME",
                )
            }
        }
    }
}

fn tools() -> Vec<Check> {
    vmrepl_image::host_tools()
        .into_iter()
        .map(|tool| match tool.found {
            Some(version) => Check::ok(tool.name, version),
            None if tool.optional => Check::ok(
                tool.name,
                format!("not found; optional, for {}", tool.needed_for),
            ),
            None => Check::warn(
                tool.name,
                format!("not found; `vmrepl prepare` needs it: {}", tool.needed_for),
                format!("apt-get install {}", tool.debian_package),
            ),
        })
        .collect()
}
