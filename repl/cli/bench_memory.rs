//! `vmrepl bench --machines`: what machines side by side hold of this host's memory, idle and after one small cell.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;
use vmrepl_session::{Cell, Engine, Purpose, Session, TemplateName};

use crate::bench::Silent;
use crate::out;
use crate::places::Environment;

/// What one of so many machines holds, on average, in bytes.
#[derive(Debug, Serialize)]
pub(crate) struct MemoryRow {
    machines: usize,
    /// Restored, and no cell run yet.
    idle: Held,
    /// After the cell `1+1`.
    after_cell: Held,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Held {
    /// Memory that is its own.
    private_bytes: u64,
    /// That, and its share of what it has in common with others (Linux's PSS).
    pss_bytes: u64,
}

/// Restores as many machines as each number says, and tells what they hold.
pub(crate) fn side_by_side(
    counts: &[usize],
    name: &TemplateName,
    engine: &Engine,
    environment: &Environment,
) -> Result<Vec<MemoryRow>> {
    let mut rows = Vec::new();
    for &machines in counts {
        let mut sessions = Vec::with_capacity(machines);
        for _ in 0..machines {
            let places = &environment.places;
            let mut session = Session::restore(places, engine, name, Purpose::Run)?;
            // Idle is a machine that has acknowledged its resume.
            session.stats()?;
            sessions.push(session);
        }
        let idle = average(&sessions)?;
        for session in &mut sessions {
            session.run(&Cell::new("1+1"), &mut Silent)?;
        }
        rows.push(MemoryRow {
            machines,
            idle,
            after_cell: average(&sessions)?,
        });
    }
    Ok(rows)
}

/// Prints them.
pub(crate) fn print(rows: &[MemoryRow]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    out::line(&format!(
        "{:<10} {:>16} {:>16} {:>18} {:>18}",
        "MACHINES", "idle, own kB", "idle, PSS kB", "after 1+1, own kB", "after 1+1, PSS kB"
    ))?;
    for row in rows {
        let (idle, after) = (row.idle, row.after_cell);
        out::line(&format!(
            "{:<10} {:>16} {:>16} {:>18} {:>18}",
            row.machines,
            idle.private_bytes / 1000,
            idle.pss_bytes / 1000,
            after.private_bytes / 1000,
            after.pss_bytes / 1000
        ))?;
    }
    Ok(())
}

fn average(sessions: &[Session]) -> Result<Held> {
    let mut sum = Held::default();
    for session in sessions {
        let one = held(session.info().process_id)?;
        sum.private_bytes += one.private_bytes;
        sum.pss_bytes += one.pss_bytes;
    }
    let count = sessions.len().max(1) as u64;
    Ok(Held {
        private_bytes: sum.private_bytes / count,
        pss_bytes: sum.pss_bytes / count,
    })
}

fn held(process: u32) -> Result<Held> {
    let path = format!("/proc/{process}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        number.and_then(|number| number.trim().parse::<u64>().ok())
    };
    let bytes = |name| kib(name).map_or(0, |kib| kib * 1024);
    Ok(Held {
        private_bytes: bytes("Private_Clean:") + bytes("Private_Dirty:"),
        pss_bytes: bytes("Pss:"),
    })
}
