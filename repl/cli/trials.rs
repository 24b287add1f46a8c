//! What machines beside a session tell: what differs between two checkpoints, what comes out when cells run again, what
//! one piece of code does under many settings.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use crossbeam_channel::{bounded, select};
use serde_json::{Value, json};
use vmrepl_session::{
    Axis, Book, Difference, Interrupter, Replayed, SessionName, Spot, Sweep, TemplateName, Tried,
    Variable, diff as differences, replay as run_again, settings, sweep as try_all,
};

use crate::args::{DiffArgs, Promote, ReplayArgs, SweepArgs};
use crate::failure::UsageError;
use crate::out;
use crate::places::Environment;
use crate::run;
use crate::signals::Signals;

/// Characters of a value in a table.
const VALUE_CHARS: usize = 60;

/// `vmrepl diff`.
pub(crate) fn diff(args: &DiffArgs, environment: &Environment) -> Result<ExitCode> {
    let before = Spot::new(&args.before)?;
    let after = match &args.after {
        Some(after) => Spot::new(after)?,
        None => Spot {
            number: None,
            ..before.clone()
        },
    };
    let found = differences(&environment.places, &before, &after)?;
    if args.json {
        let rows: Vec<Value> = found.iter().map(difference_json).collect();
        out::line(&serde_json::to_string(&rows)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let width = found
        .iter()
        .map(|one| one.name().chars().count())
        .max()
        .unwrap_or(0);
    for one in &found {
        let name = one.name();
        let line = match one {
            Difference::Added(new) => format!("+ {name:<width$}  {}", told(new)),
            Difference::Removed(old) => format!("- {name:<width$}  {}", told(old)),
            Difference::Changed(old, new) => {
                format!("~ {name:<width$}  {}  ->  {}", told(old), told(new))
            }
        };
        out::line(&out::harmless(&line))?;
    }
    if found.is_empty() {
        out::note("no name differs");
    }
    Ok(ExitCode::SUCCESS)
}

/// Type, extent and value of a name in a line.
fn told(variable: &Variable) -> String {
    let extent = match (&variable.shape, variable.row_count, variable.size_bytes) {
        (Some(shape), ..) => {
            let extents: Vec<String> = shape.iter().map(u64::to_string).collect();
            format!(" ({})", extents.join(" x "))
        }
        (None, Some(rows), _) => format!(" ({rows} rows)"),
        (None, None, Some(bytes)) => format!(" ({bytes} B)"),
        (None, None, None) => String::new(),
    };
    format!(
        "{}{extent} {}",
        variable.type_name,
        short(&variable.repr, VALUE_CHARS)
    )
}

fn difference_json(one: &Difference) -> Value {
    let (change, before, after) = match one {
        Difference::Added(new) => ("added", None, Some(new)),
        Difference::Removed(old) => ("removed", Some(old), None),
        Difference::Changed(old, new) => ("changed", Some(old), Some(new)),
    };
    json!({"name": one.name(), "change": change, "before": before, "after": after})
}

/// One line of so many characters at most.
fn short(text: &str, most: usize) -> String {
    let line = text.trim_end().replace('\n', "\\n");
    if line.chars().count() <= most {
        return line;
    }
    let mut cut: String = line.chars().take(most - 3).collect();
    cut.push_str("...");
    cut
}

/// `vmrepl replay`. It fails with 1 when something comes out otherwise, so that scripts can tell.
pub(crate) fn replay(args: &ReplayArgs, environment: &Environment) -> Result<ExitCode> {
    let spot = Spot::new(&args.name)?;
    let on = args.on.as_deref().map(TemplateName::new).transpose()?;
    let stops = Stops::watch()?;
    let mut begins = |interrupter| stops.add(interrupter);
    let mut failed = None;
    let mut each = |replayed: &Replayed| {
        if !args.json && failed.is_none() {
            failed = tell_replayed(replayed, args.verbose).err();
        }
    };
    let all = run_again(
        &environment.places,
        &spot,
        on.as_ref(),
        &mut begins,
        &mut each,
    )?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let differing = all.iter().filter(|one| !one.changes.is_empty()).count();
    if args.json {
        let rows: Vec<Value> = all.iter().map(replayed_json).collect();
        out::line(&serde_json::to_string(&rows)?)?;
    } else {
        out::line(&format!(
            "{} cells, {differing} came out otherwise",
            all.len()
        ))?;
    }
    Ok(if differing == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn tell_replayed(replayed: &Replayed, all: bool) -> std::io::Result<()> {
    let first = replayed.code.trim().lines().next().unwrap_or_default();
    if replayed.changes.is_empty() {
        return if all {
            out::line(&out::harmless(&format!("= {:>4} {first}", replayed.number)))
        } else {
            Ok(())
        };
    }
    out::line(&out::harmless(&format!("~ {:>4} {first}", replayed.number)))?;
    for change in &replayed.changes {
        out::line(&out::harmless(&format!(
            "       {}: {}  ->  {}",
            change.part,
            short(&change.before, VALUE_CHARS),
            short(&change.after, VALUE_CHARS)
        )))?;
    }
    Ok(())
}

fn replayed_json(replayed: &Replayed) -> Value {
    let changes: Vec<Value> = replayed
        .changes
        .iter()
        .map(|change| json!({"part": change.part, "before": change.before, "after": change.after}))
        .collect();
    json!({"cell": replayed.number, "code": replayed.code, "changes": changes})
}

/// `vmrepl sweep`.
pub(crate) fn sweep(args: &SweepArgs, environment: &Environment) -> Result<ExitCode> {
    let name = SessionName::new(&args.name)?;
    let axes: Vec<Axis> = args
        .settings
        .iter()
        .map(|text| Axis::new(text))
        .collect::<Result<_, _>>()?;
    if axes.is_empty() {
        let message = "nothing to try: say --set NAME=VALUES, such as --set \"lr=[0.1, 0.01]\"";
        return Err(UsageError {
            message: message.to_owned(),
        }
        .into());
    }
    let limits = run::limits_over(&args.limits, vmrepl_session::Limits::SESSION)?;
    let mut book = Book::open(&environment.places, &name, std::time::Duration::ZERO)?;
    let plan = Sweep {
        code: args.code.clone(),
        settings: settings(&environment.places, &book, &axes)?,
        jobs: args.jobs,
        limits: Some(limits),
    };
    let stops = Stops::watch()?;
    let count = plan.settings.len();
    let each = |tried: &Tried| {
        if out::is_interactive() {
            let shown = plan
                .settings
                .get(tried.setting)
                .map(|set| set.shown.join(" "));
            out::note(&format!(
                "{} of {count}: {} {}",
                tried.setting + 1,
                shown.unwrap_or_default(),
                tried.status
            ));
        }
    };
    let begins = |interrupter| stops.add(interrupter);
    let tried = try_all(&environment.places, &mut book, &plan, &begins, &each)?;
    let best = args.promote.and_then(|promote| best_of(&tried, promote));
    if args.json {
        let rows: Vec<Value> = tried
            .iter()
            .map(|one| tried_json(one, &axes, &plan, best))
            .collect();
        out::line(&serde_json::to_string(&rows)?)?;
    } else {
        table(&tried, &axes, &plan)?;
    }
    match (args.promote, best) {
        (None, _) => {}
        (Some(_), Some(number)) => {
            book.go(number)?;
            out::note(&format!("{name} stands at cell {number}"));
        }
        (Some(_), None) => out::note(&format!(
            "no result is a number: {name} stands where it stood"
        )),
    }
    Ok(ExitCode::SUCCESS)
}

/// The cell with the largest or the smallest number as its result.
fn best_of(tried: &[Tried], promote: Promote) -> Option<u32> {
    let number = |one: &Tried| -> Option<f64> {
        let result = one.result.as_deref().filter(|_| one.has_checkpoint)?;
        // NumPy says what kind of number it is.
        let plain = result
            .strip_prefix("np.")
            .and_then(|typed| typed.split_once('(')?.1.strip_suffix(')'))
            .unwrap_or(result);
        plain.parse().ok().filter(|value: &f64| !value.is_nan())
    };
    let all = tried
        .iter()
        .filter_map(|one| Some((number(one)?, one.number)));
    let ordered = |one: &(f64, u32), other: &(f64, u32)| one.0.total_cmp(&other.0);
    match promote {
        Promote::Max => all.max_by(ordered),
        Promote::Min => all.min_by(ordered),
    }
    .map(|(_, number)| number)
}

fn tried_json(tried: &Tried, axes: &[Axis], plan: &Sweep, best: Option<u32>) -> Value {
    let shown = plan.settings.get(tried.setting).map(|set| &set.shown);
    let set: serde_json::Map<String, Value> = axes
        .iter()
        .zip(shown.into_iter().flatten())
        .map(|(axis, value)| (axis.name.clone(), Value::from(value.as_str())))
        .collect();
    json!({"set": set, "cell": tried.number, "status": tried.status, "result": tried.result,
        "output": tried.output, "error": tried.error, "took_us": tried.took_us,
        "has_checkpoint": tried.has_checkpoint, "is_promoted": best == Some(tried.number)})
}

/// One table of results: settings, what came out, the cell to go to.
fn table(tried: &[Tried], axes: &[Axis], plan: &Sweep) -> Result<()> {
    let mut rows: Vec<Vec<String>> = vec![axes.iter().map(|axis| axis.name.clone()).collect()];
    rows[0].extend(["RESULT", "STATUS", "MS", "CELL"].map(str::to_owned));
    for one in tried {
        let shown = plan.settings.get(one.setting).map(|set| set.shown.clone());
        let mut row: Vec<String> = shown
            .unwrap_or_default()
            .iter()
            .map(|value| short(value, VALUE_CHARS / 2))
            .collect();
        let last = |text: &str| text.trim_end().lines().next_back().map(str::to_owned);
        let result = one
            .result
            .clone()
            .or_else(|| one.error.as_deref().and_then(last))
            .or_else(|| last(&one.output));
        row.push(short(&result.unwrap_or_default(), VALUE_CHARS));
        row.push(one.status.clone());
        row.push(format!("{:.0}", one.took_us as f64 / 1000.0));
        row.push(one.number.to_string());
        rows.push(row);
    }
    let columns = rows[0].len();
    let widths: Vec<usize> = (0..columns)
        .map(|at| {
            let width = |row: &Vec<String>| row.get(at).map_or(0, |cell| cell.chars().count());
            rows.iter().map(width).max().unwrap_or(0)
        })
        .collect();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        out::line(out::harmless(&cells.join("  ")).trim_end())?;
    }
    Ok(())
}

/// Machines that the first Ctrl-C ends.
#[derive(Clone)]
struct Stops {
    running: Arc<Mutex<Vec<Interrupter>>>,
    signals: Signals,
}

impl Stops {
    fn watch() -> Result<Self> {
        let signals = Signals::install()?;
        let stops = Self {
            running: Arc::default(),
            signals: signals.clone(),
        };
        let (heard, running) = (signals.heard(), Arc::clone(&stops.running));
        let (_alive, never) = bounded::<()>(0);
        // Ends with the process.
        let _detached = std::thread::spawn(move || {
            let _alive = _alive;
            select! {
                recv(heard) -> _ => {
                    for one in running.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                        one.give_up();
                    }
                }
                recv(never) -> _ => {}
            }
        });
        Ok(stops)
    }

    fn add(&self, interrupter: Interrupter) {
        if self.signals.were_seen() {
            interrupter.give_up();
        }
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(interrupter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_a_number_that_one_can_go_to() {
        let tried = |number, result: Option<&str>, has_checkpoint| Tried {
            setting: 0,
            number,
            status: "ok".to_owned(),
            result: result.map(str::to_owned),
            output: String::new(),
            error: None,
            took_us: 0,
            has_checkpoint,
        };
        let all = [
            tried(1, Some("0.5"), true),
            tried(2, Some("np.float64(0.75)"), true),
            tried(3, Some("9"), false),
            tried(4, Some("nan"), true),
            tried(5, None, true),
            tried(6, Some("-1e3"), true),
        ];
        assert_eq!(best_of(&all, Promote::Max), Some(2));
        assert_eq!(best_of(&all, Promote::Min), Some(6));
        assert_eq!(best_of(&all[2..5], Promote::Max), None);
    }

    #[test]
    fn a_value_is_one_line() {
        assert_eq!(short("a\nb\n", 60), "a\\nb");
        assert_eq!(short("abcdefgh", 6), "abc...");
    }
}
