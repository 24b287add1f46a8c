//! `vmrepl bench --sessions`: what a checkpoint costs, and how long it takes to come back to one.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use vmrepl_session::{
    Book, Cell, Engine, EngineChoice, EngineKind, Opening, Purpose, RngPolicy, Session,
    SessionName, TemplateName, collect, session_sizes,
};

use crate::args::BenchArgs;
use crate::bench::{Row, Silent, host, percentile, row, timed};
use crate::out;
use crate::places::Environment;

/// A cell that changes little.
const SMALL: &str = "x = x + 1; x";
/// Cells before those that count: by then the first ones, in which more is new, are as small as they get.
const WARM_CELLS: u32 = 5;
/// Where an early checkpoint is opened, to compare a late one with.
const EARLY: u32 = 5;

/// What is measured of a session with little in it and of one with much.
struct Phases {
    cell: &'static str,
    durable: &'static str,
    undo: &'static str,
    answer: &'static str,
    process: &'static str,
    process_undo: &'static str,
    process_redo: &'static str,
}

const SMALL_PHASES: Phases = Phases {
    cell: "cell, with a checkpoint",
    durable: "  until that is durable",
    undo: "undo, live",
    answer: "  the next answer",
    process: "process: -s NAME -c x",
    process_undo: "process: undo",
    process_redo: "process: redo",
};

const LARGE_PHASES: Phases = Phases {
    cell: "with the data: cell",
    durable: "  until that is durable, data",
    undo: "with the data: undo, live",
    answer: "  the next answer, data",
    process: "with the data: -s NAME -c x",
    process_undo: "with the data: undo process",
    process_redo: "with the data: redo process",
};

/// Samples by phase, in milliseconds.
#[derive(Default)]
struct Samples(Vec<(&'static str, Vec<f64>)>);

impl Samples {
    fn time<T>(&mut self, phase: &'static str, what: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let made = what()?;
        self.add(phase, began.elapsed().as_secs_f64() * 1000.0);
        Ok(made)
    }

    fn add(&mut self, phase: &'static str, took_ms: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == phase) {
            Some((_, samples)) => samples.push(took_ms),
            None => self.0.push((phase, vec![took_ms])),
        }
    }

    fn p50(&self, phase: &str) -> f64 {
        let found = self.0.iter().find(|(known, _)| *known == phase);
        found.map_or(f64::NAN, |(_, samples)| percentile(samples, 50))
    }
}

/// Measures and tells. Its sessions are removed at the end.
pub(crate) fn bench(
    args: &BenchArgs,
    engine: &Engine,
    environment: &Environment,
) -> Result<ExitCode> {
    let field = Field {
        template: TemplateName::new(&args.template)?,
        engine,
        environment,
        name: format!("bench-{}", std::process::id()),
    };
    let measured = field.measure(args);
    field.clear();
    let (samples, facts) = measured?;
    let rows: Vec<Row> = samples
        .0
        .iter()
        .map(|(phase, samples)| row(phase, samples.clone()))
        .collect();
    let delay_ms = samples.p50("cell, with a checkpoint") - samples.p50("cell, without a name");
    if args.json {
        let object = serde_json::json!({
            "template": args.template, "engine": engine.compat(), "host": host(), "phases": rows,
            "checkpoint_delay_ms": delay_ms, "data_bytes": args.data, "cells": facts.cells,
            "bytes_per_cell": facts.bytes_per_cell,
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
    crate::bench::table(&rows)?;
    out::line(&format!(
        "a small cell's checkpoint delays its answer by {delay_ms:.1} ms (p50)"
    ))?;
    out::line(&format!(
        "{} small cells take {:.1} MB of disk, {:.0} kB each",
        facts.cells,
        facts.bytes_per_cell * f64::from(facts.cells) / 1e6,
        facts.bytes_per_cell / 1e3
    ))?;
    Ok(ExitCode::SUCCESS)
}

struct Field<'a> {
    template: TemplateName,
    engine: &'a Engine,
    environment: &'a Environment,
    name: String,
}

struct Facts {
    cells: u32,
    bytes_per_cell: f64,
}

impl Field<'_> {
    fn open(&self, name: &str, at: Option<u32>) -> Result<Session> {
        let name = SessionName::new(name)?;
        let opening = Opening {
            name: &name,
            template: &self.template,
            engine: match EngineKind::of(self.engine) {
                EngineKind::Kvm => EngineChoice::Kvm,
                EngineKind::Qemu => EngineChoice::Qemu,
            },
            at,
            patience: Duration::ZERO,
            rng: RngPolicy::Keep,
            language: None,
        };
        Ok(Session::open(&self.environment.places, &opening)?.0)
    }

    fn measure(&self, args: &BenchArgs) -> Result<(Samples, Facts)> {
        let runs = args.runs.max(1);
        let mut samples = Samples::default();
        let mut kept = self.open(&self.name, None)?;
        let facts = self.chain(&mut kept, args, &mut samples)?;
        undo(&mut kept, &SMALL_PHASES, runs, &mut samples)?;
        kept.leave()?;
        self.come_back(runs, facts.cells + WARM_CELLS, &mut samples)?;
        self.processes(&SMALL_PHASES, runs, &mut samples)?;
        if let Some(bytes) = args.data {
            let mut kept = self.open(&self.name, None)?;
            fill(&mut kept, bytes, runs, &mut samples)?;
            undo(&mut kept, &LARGE_PHASES, runs, &mut samples)?;
            kept.leave()?;
            self.processes(&LARGE_PHASES, runs, &mut samples)?;
        }
        Ok((samples, facts))
    }

    /// Small cells, in turn with those of a session without a name.
    fn chain(&self, kept: &mut Session, args: &BenchArgs, samples: &mut Samples) -> Result<Facts> {
        let places = &self.environment.places;
        let mut bare = Session::restore(places, self.engine, &self.template, Purpose::Freeze)?;
        for session in [&mut bare, &mut *kept] {
            run(session, "x = 0")?;
            for _ in 1..WARM_CELLS {
                run(session, SMALL)?;
            }
        }
        kept.book()?;
        let before = self.bytes()?;
        let cells = args.chain.max(u32::try_from(args.runs.max(1))?);
        for _ in 0..cells {
            samples.time("cell, without a name", || run(&mut bare, SMALL))?;
            cell(kept, &SMALL_PHASES, samples)?;
        }
        Ok(Facts {
            cells,
            bytes_per_cell: (self.bytes()? as f64 - before as f64) / f64::from(cells),
        })
    }

    /// Opens an early and a late checkpoint, and forks, in turn.
    fn come_back(&self, runs: usize, late: u32, samples: &mut Samples) -> Result<()> {
        for at in 0..runs {
            for (phase, cell) in [
                ("open at cell 5, answer", EARLY),
                ("open at the last cell, answer", late),
            ] {
                let fork = format!("{}-{phase}-{at}", self.name).replace([' ', ','], "");
                self.fork(&fork, cell)?;
                samples.time(phase, || {
                    let mut session = self.open(&fork, None)?;
                    run(&mut session, "x")?;
                    Ok(session)
                })?;
                self.remove(&fork)?;
            }
            let fork = format!("{}-fork-{at}", self.name);
            samples.time("fork, to the child's first answer", || {
                self.fork(&fork, late)?;
                let mut session = self.open(&fork, None)?;
                run(&mut session, "x")?;
                Ok(session)
            })?;
            self.remove(&fork)?;
        }
        Ok(())
    }

    /// Whole processes, as scripts start them.
    fn processes(&self, phases: &Phases, runs: usize, samples: &mut Samples) -> Result<()> {
        let own = std::env::current_exe().context("could not find this program")?;
        let engine = ["--engine", self.engine.name()];
        let template = ["--template", self.template.as_str()];
        let plain = [&engine[..], &template, &["-c", "1+1"]].concat();
        let cell = [&engine[..], &["-s", &self.name, "-c", "x"]].concat();
        let in_process = |samples: &mut Samples, phase, arguments: &[&str]| -> Result<()> {
            let took = timed(Path::new(&own), arguments);
            let took = took.with_context(|| format!("vmrepl {} failed", arguments.join(" ")))?;
            samples.add(phase, took);
            Ok(())
        };
        for _ in 0..runs {
            in_process(samples, "process: -c 1+1", &plain)?;
            in_process(samples, phases.process, &cell)?;
            in_process(samples, phases.process_undo, &["undo", &self.name])?;
            in_process(samples, phases.process_redo, &["redo", &self.name])?;
        }
        Ok(())
    }

    fn fork(&self, name: &str, cell: u32) -> Result<()> {
        let mut history = vmrepl_session::open_history(&self.environment.places)?;
        let from = history.session(&self.name)?;
        history.fork(&from, cell, name)?;
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let name = SessionName::new(name)?;
        Book::open(&self.environment.places, &name, Duration::from_secs(10))?.remove()?;
        Ok(())
    }

    fn bytes(&self) -> Result<u64> {
        let sizes = session_sizes(&self.environment.places)?;
        Ok(sizes.get(&self.name).copied().unwrap_or(0))
    }

    /// Removes what was made, whatever became of it.
    fn clear(&self) {
        let places = &self.environment.places;
        let all = vmrepl_session::open_history(places).and_then(|history| {
            history
                .sessions()
                .map_err(vmrepl_session::SessionError::History)
        });
        for session in all.unwrap_or_default() {
            if session.name.starts_with(&self.name) {
                self.remove(&session.name).ok();
            }
        }
        collect(places, Duration::ZERO, false).ok();
    }
}

/// A small cell, until its checkpoint is stored.
fn cell(session: &mut Session, phases: &Phases, samples: &mut Samples) -> Result<()> {
    let began = Instant::now();
    run(session, SMALL)?;
    samples.add(phases.cell, began.elapsed().as_secs_f64() * 1000.0);
    session.book()?;
    samples.add(phases.durable, began.elapsed().as_secs_f64() * 1000.0);
    Ok(())
}

/// Goes back one cell and on from there.
fn undo(session: &mut Session, phases: &Phases, runs: usize, samples: &mut Samples) -> Result<()> {
    for _ in 0..runs {
        samples.time(phases.undo, || Ok(session.undo(1).map(drop)?))?;
        samples.time(phases.answer, || run(session, SMALL))?;
        session.book()?;
        run(session, SMALL)?;
        session.book()?;
    }
    Ok(())
}

/// Has the session hold so much, and then runs small cells.
fn fill(session: &mut Session, bytes: u64, runs: usize, samples: &mut Samples) -> Result<()> {
    let code = format!(
        "import numpy, pandas\ndata = pandas.DataFrame({{'a': numpy.random.default_rng(1).random({})}}, copy=False)",
        bytes / 8
    );
    samples.time("a cell that makes the data, durable", || {
        run(session, &code)?;
        session.book()?;
        Ok(())
    })?;
    (0..runs).try_for_each(|_| cell(session, &LARGE_PHASES, samples))
}

fn run(session: &mut Session, code: &str) -> Result<()> {
    let answer = session.run(&Cell::new(code), &mut Silent)?;
    if answer.exit_code != 0 {
        bail!("{code:?}: {}", answer.error.unwrap_or_default());
    }
    Ok(())
}
