//! `vmrepl bench --languages`: what the sandbox of the languages port adds to a program, beside the same program run in the same
//! guest without it.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use vmrepl_session::{
    Cell, Engine, Execute, Language, LanguageStatus, Purpose, Session, TemplateName,
};

use crate::args::BenchArgs;
use crate::bench::{Silent, host, percentile, row, table};
use crate::out;
use crate::places::Environment;

const PROGRAM: &str = "echo hello\n";

/// Runs that come before those that count.
const WARM_RUNS: usize = 5;

/// Measures and tells.
pub(crate) fn bench(
    args: &BenchArgs,
    engine: &Engine,
    environment: &Environment,
) -> Result<ExitCode> {
    let name = TemplateName::new(&args.template)?;
    let runs = args.runs.max(1);
    let mut session = Session::restore(&environment.places, engine, &name, Purpose::Freeze)?;
    let raw = raw(&mut session, runs)?;
    let agent_before = session.stats()?.agent_anon_bytes;
    let order = Execute::new("bench", Language::Bash, PROGRAM.as_bytes());
    let mut strangers = session.strangers()?;
    let (mut acknowledged, mut whole) = (Vec::new(), Vec::new());
    for number in 0..WARM_RUNS + runs {
        let done = strangers.execute(&order)?;
        let outcome = &done.outcome;
        ensure!(
            outcome.status == LanguageStatus::Success && outcome.stdout == b"hello\n",
            "run {number}: {outcome:?}"
        );
        if number >= WARM_RUNS {
            acknowledged.push(done.acknowledged.as_secs_f64() * 1000.0);
            whole.push(done.took.as_secs_f64() * 1000.0);
        }
    }
    drop(strangers);
    let stats = session.stats()?;
    let (p50_raw, p50_whole) = (percentile(&raw, 50), percentile(&whole, 50));
    let rows = vec![
        row("bash, without the sandbox", raw),
        row("bash, languages port: acknowledged", acknowledged),
        row("bash, languages port: result", whole),
    ];
    let (added, ratio) = (p50_whole - p50_raw, p50_whole / p50_raw);
    if args.json {
        let object = serde_json::json!({
            "template": args.template, "engine": engine.compat(), "host": host(), "phases": rows,
            "added_ms": added, "ratio": ratio, "agent_rss_bytes": stats.agent_rss_bytes,
            "agent_anon_bytes": stats.agent_anon_bytes, "agent_anon_before_bytes": agent_before,
        });
        out::line(&serde_json::to_string(&object)?)?;
    } else {
        table(&rows)?;
        out::line(&format!(
            "added: {added:.2} ms, {ratio:.2} of the bare run; agent {} kB resident, {} kB its own ({} kB before)",
            stats.agent_rss_bytes / 1000,
            stats.agent_anon_bytes / 1000,
            agent_before / 1000
        ))?;
    }
    session.leave()?;
    Ok(ExitCode::SUCCESS)
}

/// The program started by Python in the guest: times in milliseconds, by the guest's clock.
fn raw(session: &mut Session, runs: usize) -> Result<Vec<f64>> {
    let code = format!(
        "import subprocess, time\n\
         def once():\n    \
             began = time.perf_counter()\n    \
             subprocess.run(['/bin/bash', '-c', {PROGRAM:?}], stdout=subprocess.PIPE, check=True)\n    \
             return (time.perf_counter() - began) * 1000\n\
         [once() for _ in range({})][{WARM_RUNS}:]",
        WARM_RUNS + runs
    );
    let answer = session.run(&Cell::new(code), &mut Silent)?;
    let text = answer.result_repr.unwrap_or_default();
    serde_json::from_str(&text).with_context(|| format!("the guest's own times: {text}"))
}
