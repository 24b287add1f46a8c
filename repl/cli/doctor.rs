//! `vmrepl doctor`: what this host has, what follows, how to mend it.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use vmrepl_session::{Found, Template};

use crate::check::{Check, Verdict};
use crate::engines::Engines;
use crate::out;
use crate::places::Environment;

/// Runs all checks. Exit code 0 when cells can run, else 1.
pub(crate) fn doctor(as_json: bool, environment: &Environment) -> Result<ExitCode> {
    let engines = Engines::look(&environment.places);
    let mut checks = engines.checks();
    checks.push(ptrace());
    checks.push(writable("folder of machines", &environment.places.run));
    checks.push(writable("store", &environment.places.store));
    checks.push(templates(environment));
    checks.extend(tools());
    let healthy = checks.iter().all(|check| check.verdict != Verdict::Fail);
    if as_json {
        out::line(&serde_json::to_string(
            &serde_json::json!({"healthy": healthy, "engine": engines.facts(), "checks": checks}),
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
            let told = |found: &Found| format!("{} for {}", found.name, found.engine);
            let (sound, damaged): (Vec<_>, Vec<_>) =
                all.iter().partition(|found| found.template.is_ok());
            let list =
                |found: Vec<&Found>| found.into_iter().map(told).collect::<Vec<_>>().join(", ");
            if damaged.is_empty() {
                Check::ok(name, list(sound))
            } else {
                Check::warn(
                    name,
                    format!("damaged: {}", list(damaged)),
                    "vmrepl prepare --force NAME --engine ENGINE",
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
