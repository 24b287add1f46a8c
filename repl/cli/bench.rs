//! `vmrepl bench`: how long the phases take here, as percentiles.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use vmrepl_session::{
    Cell, Engine, Event, Input, InputRequest, Layers, Phases, PoolSize, Purpose, Session, Sink,
    TemplateName, Way, engine_for,
};

use crate::args::BenchArgs;
use crate::bench_languages;
use crate::bench_memory;
use crate::bench_sessions;
use crate::out;
use crate::places::Environment;

const LATER_CELLS: usize = 10;

/// How long a machine that is made ahead is waited for.
const POOL_PATIENCE: Duration = Duration::from_secs(60);

/// Percentiles of one phase, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    phase: &'static str,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    samples: usize,
}

pub(crate) struct Silent;

impl Sink for Silent {
    fn event(&mut self, _event: &Event) {}

    fn input(&mut self, _request: &InputRequest) -> Input {
        Input::End
    }
}

/// What runs beside the code, in bytes.
#[derive(Debug, Default, Serialize)]
struct Memory {
    /// Resident memory of the guest's agent.
    agent_rss_bytes: u64,
    /// The part of it that belongs to no file.
    agent_anon_bytes: u64,
    /// The most that this process had resident; the engine is another process.
    own_peak_rss_bytes: u64,
    /// Pages that a small cell left at most, where the engine tells it; 0 where not.
    cell_pages: u64,
    /// Bytes of its layer with the machine's state.
    cell_stored_bytes: u64,
}

/// Measures and tells.
pub(crate) fn bench(args: &BenchArgs, environment: &Environment) -> Result<ExitCode> {
    let name = TemplateName::new(&args.template)?;
    let engine = engine_for(&environment.places, args.engine.into(), &name)?;
    if args.languages {
        return bench_languages::bench(args, &engine, environment);
    }
    if args.sessions {
        return bench_sessions::bench(args, &engine, environment);
    }
    let (mut rows, memory) = phases(args.runs.max(1), &name, &engine, environment)?;
    let machines = bench_memory::side_by_side(&args.machines, &name, &engine, environment)?;
    let (whole, python) = processes(args, &engine)?;
    let ratio = python
        .as_ref()
        .map(|python| percentile(&whole, 50) / percentile(python, 50));
    rows.push(row("whole process: -c 1+1", whole));
    if let Some(python) = python {
        rows.push(row("host: import pandas", python));
    }
    if args.json {
        let object = serde_json::json!({
            "template": args.template, "engine": engine.compat(), "host": host(), "phases": rows,
            "whole_to_host_import_pandas": ratio, "memory": memory, "machines": machines,
        });
        out::line(&serde_json::to_string(&object)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    out::line(&format!(
        "template {}, engine {}, {}",
        args.template,
        engine.compat(),
        host()
    ))?;
    table(&rows)?;
    out::line(&format!(
        "resident: agent {} kB (of which its own {} kB), this program {} kB at most",
        memory.agent_rss_bytes / 1000,
        memory.agent_anon_bytes / 1000,
        memory.own_peak_rss_bytes / 1000
    ))?;
    match ratio {
        Some(ratio) => out::line(&format!("whole process / host `import pandas`: {ratio:.2}"))?,
        None => out::note("no host Python with pandas to compare with (see --python)"),
    }
    if memory.cell_pages > 0 {
        out::line(&format!(
            "a small cell leaves at most {} pages; its layer has {} kB",
            memory.cell_pages,
            memory.cell_stored_bytes / 1000
        ))?;
    }
    bench_memory::print(&machines)?;
    Ok(ExitCode::SUCCESS)
}

/// The rows under their headings.
pub(crate) fn table(rows: &[Row]) -> Result<()> {
    out::line(&format!(
        "{:<38} {:>9} {:>9} {:>9}  {}",
        "PHASE", "p50 ms", "p95 ms", "p99 ms", "SAMPLES"
    ))?;
    for row in rows {
        let (p50, p95, p99) = (row.p50_ms, row.p95_ms, row.p99_ms);
        out::line(&format!(
            "{:<38} {p50:>9.2} {p95:>9.2} {p99:>9.2}  {}",
            row.phase, row.samples
        ))?;
    }
    Ok(())
}

fn phases(
    runs: usize,
    name: &TemplateName,
    engine: &Engine,
    environment: &Environment,
) -> Result<(Vec<Row>, Memory)> {
    let mut table = Table::default();
    let mut memory = Memory::default();
    for _ in 0..runs {
        let mut session = Session::restore(&environment.places, engine, name, Purpose::Freeze)?;
        session.run(&Cell::new("1+1"), &mut Silent)?;
        let times = session.times();
        table.add("open template", ms(times.opened_us));
        if let Some(phases) = session.phases() {
            table.add_phases(&phases);
        }
        table.add("restore", ms(times.linked_us));
        let process_us = times.process_us - times.opened_us;
        table.add("start process", ms(process_us));
        table.add(
            "resume, hello",
            ms(times.resumed_us.saturating_sub(times.linked_us)),
        );
        let first_us = times.first_cell_us.saturating_sub(times.resumed_us);
        table.add("first cell", ms(first_us));
        table.add("restore to first answer", ms(times.first_cell_us));
        for _ in 0..LATER_CELLS {
            let began = Instant::now();
            session.run(&Cell::new("1+1"), &mut Silent)?;
            table.add(
                "later cells, round trip",
                began.elapsed().as_secs_f64() * 1000.0,
            );
        }
        // The first freeze holds all that was written since the restore, the second what one cell leaves.
        let mut layers = Layers::over(&session)?;
        for which in ["freeze of all so far", "freeze of a small cell"] {
            let cell = Cell::new("1+1");
            if let Some(turn) = session.measure_turn(&cell, &mut Silent, &mut layers)? {
                table.add(which, ms(turn.freeze_us));
                table.add("roll back a small cell", ms(turn.roll_back_us));
                table.add("write a layer", ms(turn.publish_us));
                if which == "freeze of a small cell" {
                    memory.cell_pages = memory.cell_pages.max(turn.pages);
                    memory.cell_stored_bytes = memory.cell_stored_bytes.max(turn.stored_bytes);
                }
                session.run(&Cell::new("1+1"), &mut Silent)?;
            }
        }
        let stats = session.stats()?;
        memory.agent_rss_bytes = memory.agent_rss_bytes.max(stats.agent_rss_bytes);
        memory.agent_anon_bytes = memory.agent_anon_bytes.max(stats.agent_anon_bytes);
        for (bound, spare) in [(0, 1), (1, 0)] {
            session.keep_ready(PoolSize { bound, spare });
            if session.wait_ready(POOL_PATIENCE) {
                session = session.restart()?;
                session.run(&Cell::new("1+1"), &mut Silent)?;
                table.add_pooled(&session);
            }
        }
        session.keep_ready(PoolSize { bound: 0, spare: 0 });
        let began = Instant::now();
        drop(session);
        table.add("end", began.elapsed().as_secs_f64() * 1000.0);
    }
    memory.own_peak_rss_bytes = peak_rss_bytes();
    Ok((table.rows(), memory))
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// Samples by phase, in the order in which phases first came.
#[derive(Default)]
struct Table(Vec<(&'static str, Vec<f64>)>);

impl Table {
    fn add(&mut self, phase: &'static str, sample_ms: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == phase) {
            Some((_, samples)) => samples.push(sample_ms),
            None => self.0.push((phase, vec![sample_ms])),
        }
    }

    /// The parts of starting a worker.
    fn add_phases(&mut self, phases: &Phases) {
        let parts = [
            ("  worker: spawn", phases.begun_ns, phases.spawned_ns),
            ("  worker: first line", phases.spawned_ns, phases.started_ns),
            ("  worker: jail", phases.started_ns, phases.jailed_ns),
            ("  worker: shell", phases.jailed_ns, phases.built_ns),
            (
                "  worker: map",
                phases.built_ns.max(phases.ordered_ns),
                phases.mapped_ns,
            ),
            ("  worker: state", phases.mapped_ns, phases.set_ns),
            ("  worker: first entry", phases.set_ns, phases.run_ns),
        ];
        for (phase, from, to) in parts {
            self.add(phase, to.saturating_sub(from) as f64 / 1e6);
        }
    }

    /// A restart in what was ready.
    fn add_pooled(&mut self, session: &Session) {
        let (restored, answered) = match session.info().way {
            Way::Spare => ("pooled: restore", "pooled: to first answer"),
            Way::Bound => ("pooled, bound: restore", "pooled, bound: to first answer"),
            Way::Nothing => return,
        };
        let times = session.times();
        self.add(restored, ms(times.linked_us));
        self.add(answered, ms(times.first_cell_us));
    }

    fn rows(self) -> Vec<Row> {
        let rows = self.0.into_iter();
        rows.map(|(phase, samples)| row(phase, samples)).collect()
    }
}

/// `VmHWM` of this process.
fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Whole processes, ours and the host's Python in turn.
fn processes(args: &BenchArgs, engine: &Engine) -> Result<(Vec<f64>, Option<Vec<f64>>)> {
    let own = std::env::current_exe().context("could not find this program")?;
    let has_pandas = timed(&args.python, &["-c", "import pandas"]).is_some();
    let (mut whole, mut python) = (Vec::new(), Vec::new());
    for _ in 0..args.runs.max(1) {
        let arguments = [
            "--engine",
            engine.name(),
            "--template",
            &args.template,
            "-c",
            "1+1",
        ];
        let ours = timed(&own, &arguments).context("a run of 1+1 failed")?;
        whole.push(ours);
        if has_pandas && let Some(theirs) = timed(&args.python, &["-c", "import pandas"]) {
            python.push(theirs);
        }
    }
    Ok((whole, has_pandas.then_some(python)))
}

pub(crate) fn timed(program: &Path, arguments: &[&str]) -> Option<f64> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let began = Instant::now();
    let status = command.status().ok()?;
    status
        .success()
        .then(|| began.elapsed().as_secs_f64() * 1000.0)
}

pub(crate) fn row(phase: &'static str, mut samples: Vec<f64>) -> Row {
    samples.sort_by(f64::total_cmp);
    Row {
        phase,
        p50_ms: percentile(&samples, 50),
        p95_ms: percentile(&samples, 95),
        p99_ms: percentile(&samples, 99),
        samples: samples.len(),
    }
}

/// Nearest-rank percentile.
pub(crate) fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).copied().unwrap_or(f64::NAN)
}

pub(crate) fn host() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_start_matches(['\t', ' ', ':']);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let linux = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} x {cpu}, Linux {}", linux.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((percentile(&samples, 50) - 50.0).abs() < f64::EPSILON);
        assert!((percentile(&samples, 99) - 99.0).abs() < f64::EPSILON);
        assert!((percentile(&[7.0], 95) - 7.0).abs() < f64::EPSILON);
    }
}
