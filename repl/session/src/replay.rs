//! The cells of a session once more, on a fresh machine: what comes out otherwise this time.

use serde_json::Value;
use vmrepl_history::{CellRow, Outcome};
use vmrepl_machine::Purpose;

use crate::apart::{Spot, Unwatched, at, engine_of, restore};
use crate::book::open_history;
use crate::cell::Cell;
use crate::choice::engine_for;
use crate::command::is_aside;
use crate::error::SessionError;
use crate::interrupt::Interrupter;
use crate::kind::{EngineChoice, EngineKind};
use crate::places::Places;
use crate::recorder::Recorder;
use crate::session::Session;
use crate::template::{Template, TemplateName};

/// One cell, as it came out then and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Its number in the session.
    pub number: u32,
    /// Its code.
    pub code: String,
    /// What is not as it was, with what it was and what it is now.
    pub changes: Vec<Change>,
}

/// A part of a cell's outcome that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `status`, `output`, `result`, `error` or `displays`.
    pub part: &'static str,
    /// What it was.
    pub before: String,
    /// What it is.
    pub after: String,
}

/// Runs the cells that led to a cell of a session on a fresh machine of its template, or of another one, and tells of
/// each how its outcome differs. The session is not touched. `begins` gets what stops the machine's cells.
///
/// The calling thread must outlive the machine, which ends before this returns.
///
/// # Errors
/// When there is no such cell or template, the template's cells are of another language, or the machine is lost.
pub fn replay(
    places: &Places,
    spot: &Spot,
    on: Option<&TemplateName>,
    begins: &mut dyn FnMut(Interrupter),
    each: &mut dyn FnMut(&Replayed),
) -> Result<Vec<Replayed>, SessionError> {
    let history = open_history(places)?;
    let (row, number) = spot.find(&history)?;
    let way = history
        .way_to(row.id, number)
        .map_err(SessionError::History)?;
    let mut machine = match on {
        None => {
            let root = history
                .cell(row.id, vmrepl_history::ROOT)
                .map_err(SessionError::History)?;
            let base = root.checkpoint.ok_or_else(|| SessionError::NoCheckpoint {
                name: row.name.clone(),
                number: vmrepl_history::ROOT,
                parent: vmrepl_history::ROOT,
            })?;
            let engine = engine_of(places, &row)?;
            restore(places, &engine, &row, at(&base), Purpose::Freeze)?
        }
        Some(template) => {
            let engine = engine_for(places, EngineChoice::Auto, template)?;
            let other = Template::open(places, template, EngineKind::of(&engine))?;
            other.expect_language(&row.language)?;
            Session::restore(places, &engine, template, Purpose::Freeze)?
        }
    };
    begins(machine.interrupter());
    let mut all = Vec::new();
    for number in way {
        let cell = history
            .cell(row.id, number)
            .map_err(SessionError::History)?;
        if is_aside(&cell.code) {
            let replayed = not_again(number, cell.code);
            each(&replayed);
            all.push(replayed);
            continue;
        }
        let mut sink = Unwatched;
        let mut recorder = Recorder::new(&mut sink);
        let again = Cell {
            number: Some(number),
            ..Cell::new(&cell.code)
        };
        let answer = machine.run_cell(&format!("c{number}"), &again, &mut recorder);
        let outcome = recorder.outcome(&answer);
        answer?;
        let replayed = Replayed {
            number,
            changes: changes(&cell, &outcome),
            code: cell.code,
        };
        each(&replayed);
        all.push(replayed);
        if !machine.is_alive() {
            return Err(SessionError::MachineLost {
                why: format!("cell {number} took it with it this time"),
            });
        }
    }
    Ok(all)
}

/// A terminal or a copied file: what came from the host then is not in the record.
fn not_again(number: u32, code: String) -> Replayed {
    Replayed {
        number,
        code,
        changes: vec![Change {
            part: "status",
            before: "done from outside".to_owned(),
            after: "left out: the record holds no input and no files".to_owned(),
        }],
    }
}

fn changes(cell: &CellRow, now: &Outcome) -> Vec<Change> {
    let nothing = Outcome::default();
    let then = cell.outcome.as_ref().unwrap_or(&nothing);
    let parsed =
        |outcome: &Outcome| -> Value { serde_json::from_str(&outcome.answer).unwrap_or_default() };
    let (old, new) = (parsed(then), parsed(now));
    let of_answer = |whole: &Value, name: &str| match &whole["answer"][name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let displays = |whole: &Value| {
        let shown = whole["shown"].as_array().into_iter().flatten();
        let only: Vec<&Value> = shown
            .filter(|event| event["type"] == "display")
            .map(|event| &event["data"])
            .collect();
        serde_json::to_string(&only).unwrap_or_default()
    };
    let parts = [
        ("status", then.status.clone(), now.status.clone()),
        ("output", then.output.clone(), now.output.clone()),
        (
            "result",
            of_answer(&old, "result_repr"),
            of_answer(&new, "result_repr"),
        ),
        (
            "error",
            of_answer(&old, "error_name") + ": " + &of_answer(&old, "error_value"),
            of_answer(&new, "error_name") + ": " + &of_answer(&new, "error_value"),
        ),
        ("displays", displays(&old), displays(&new)),
    ];
    parts
        .into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(part, before, after)| Change {
            part,
            before,
            after,
        })
        .collect()
}
