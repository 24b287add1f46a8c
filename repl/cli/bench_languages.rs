//! `vmrepl bench --languages`: what the sandbox of the languages port adds to a program, beside the same program run in the same
//! guest without it, both in turn in each round.

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

/// The program started by Python in the guest.
const BARE: &str = "\
import subprocess, time
def once():
    began = time.perf_counter()
    subprocess.run(['/bin/bash', '-c', 'echo hello\\n'], stdout=subprocess.PIPE, check=True)
    return (time.perf_counter() - began) * 1000
";

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
    session.run(&Cell::new(BARE.to_owned()), &mut Silent)?;
    let agent_before = session.stats()?.agent_anon_bytes;
    let order = Execute::new("bench", Language::Bash, PROGRAM.as_bytes());
    let mut strangers = session.strangers()?;
    let (mut raw, mut acknowledged, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..WARM_RUNS + runs {
        let bare = bare(&mut session)?;
        let done = strangers.execute(&order)?;
        let outcome = &done.outcome;
        ensure!(
            outcome.status == LanguageStatus::Success && outcome.stdout == b"hello\n",
            "run {number}: {outcome:?}"
        );
        if number >= WARM_RUNS {
            raw.push(bare);
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

/// One run in milliseconds, by the guest's clock.
fn bare(session: &mut Session) -> Result<f64> {
    let answer = session.run(&Cell::new("once()".to_owned()), &mut Silent)?;
    let text = answer.result_repr.unwrap_or_default();
    serde_json::from_str(&text).with_context(|| format!("the guest's own time: {text}"))
}
