//! One piece of code under many settings, each on a machine of its own from the same checkpoint. Each becomes a branch of
//! the session, which does not move unless it is told to.

use std::sync::{Mutex, PoisonError};

use vmrepl_history::{History, Outcome};
use vmrepl_machine::{Engine, Purpose};
use vmrepl_snapshots::Store;

use vmrepl_wire::languages::Language;

use crate::apart::{Heard, Unwatched, engine_of, restore};
use crate::book::Book;
use crate::cell::Cell;
use crate::cell_limits::Limits;
use crate::checkpoint::{Ended, Manner};
use crate::error::SessionError;
use crate::interrupt::Interrupter;
use crate::limits::SETTINGS_MAX;
use crate::places::Places;
use crate::recorder::Recorder;
use crate::session::Session;
use crate::stored::At;
use crate::template::open_store;

/// Names that take values, each with an expression that gives these: `lr` and `[0.1, 0.01]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// The name.
    pub name: String,
    /// The expression, in the session's language.
    pub values: String,
}

impl Axis {
    /// Reads `NAME=VALUES`.
    ///
    /// # Errors
    /// When there is no name, or nothing behind it.
    pub fn new(text: &str) -> Result<Self, SessionError> {
        let (name, values) = text.split_once('=').unwrap_or((text, ""));
        let (name, values) = (name.trim(), values.trim());
        let is_name = |name: &str| {
            name.chars()
                .all(|sign| sign == '_' || sign.is_alphanumeric())
                && name.chars().next().is_some_and(|sign| !sign.is_numeric())
        };
        if !is_name(name) || values.is_empty() {
            return Err(SessionError::Axis {
                text: text.to_owned(),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            values: values.to_owned(),
        })
    }
}

/// One value for each name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The assignments, as code.
    pub code: String,
    /// The values, as the guest shows them.
    pub shown: Vec<String>,
}

/// What is to be tried.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The code that all run.
    pub code: String,
    /// What each sets before that.
    pub settings: Vec<Setting>,
    /// How many machines at once.
    pub jobs: usize,
    /// What each may take, instead of what the session's cells may.
    pub limits: Option<Limits>,
}

/// What one setting came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The setting, by its place in [`Sweep::settings`].
    pub setting: usize,
    /// The cell that it is in the session; `goto` leads there.
    pub number: u32,
    /// The status, by its name on the wire.
    pub status: String,
    /// What the code's last expression was.
    pub result: Option<String>,
    /// What it printed.
    pub output: String,
    /// How it failed, if it did.
    pub error: Option<String>,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// The session can go there.
    pub has_checkpoint: bool,
}

/// Every combination of the values that the session's Python gives for the axes, asked of a machine that stands where the
/// session does.
///
/// # Errors
/// When an expression gives no values, or gives too many.
pub fn settings(places: &Places, book: &Book, axes: &[Axis]) -> Result<Vec<Setting>, SessionError> {
    let engine = engine_of(places, &book.row)?;
    let at = book.checkpoint(book.row.position)?;
    let mut machine = restore(places, &engine, &book.row, at, Purpose::Run)?;
    let language = machine.language();
    let mut combined = vec![Setting {
        code: String::new(),
        shown: Vec::new(),
    }];
    for axis in axes {
        let values = values_of(&mut machine, axis)?;
        let all = combined.len() * values.len();
        if values.is_empty() || all > SETTINGS_MAX {
            return Err(SessionError::Values {
                name: axis.name.clone(),
                problem: format!("{all} settings; from 1 to {SETTINGS_MAX} can be tried"),
            });
        }
        let with = |setting: &Setting, value: &(String, String)| {
            let (code, shown) = value;
            let mut with = setting.clone();
            with.code.push_str(&match language {
                Language::Bash => format!("{}={code}\n", axis.name),
                _ => format!("{} = {code}\n", axis.name),
            });
            with.shown.push(shown.clone());
            with
        };
        combined = combined
            .iter()
            .flat_map(|setting| values.iter().map(move |value| with(setting, value)))
            .collect();
    }
    Ok(combined)
}

/// Code and looks of each value. A value whose looks do not give it back is fetched out of the expression again.
fn values_of(machine: &mut Session, axis: &Axis) -> Result<Vec<(String, String)>, SessionError> {
    const QUESTION: &str = "\
def _vmrepl_values(values, text):
    import ast, json
    told = []
    for at, value in enumerate(values):
        shown = repr(value)
        try:
            same = type(ast.literal_eval(shown)) is type(value) and ast.literal_eval(shown) == value
        except Exception:
            same = False
        told.append([shown if same else f'list({text})[{at}]', shown])
    print(json.dumps(told))
";
    const BASH: &str = r#"
_vmrepl_values() {
    local value separator='[' text
    _vmrepl_text() {
        text=${1//\\/\\\\} text=${text//\"/\\\"} text=${text//$'\n'/\\n} text=${text//$'\t'/\\t}
    }
    for value in "$@"; do
        _vmrepl_text "$(printf %q "$value")"; printf '%s["%s",' "$separator" "$text"
        _vmrepl_text "$value"; printf '"%s"]' "$text"
        separator=,
    done
    echo ']'
}
"#;
    const JAVASCRIPT: &str = "\
(values, text) => console.log(JSON.stringify([...values].map((value, at) => {
    const util = require('node:util'), code = JSON.stringify(value);
    const same = code !== undefined && util.isDeepStrictEqual(JSON.parse(code), value);
    return [same ? code : `[...(${text})][${at}]`, util.inspect(value)];
})))";
    let text = serde_json::to_string(&axis.values).expect("text becomes JSON");
    let code = match machine.language() {
        Language::Bash => format!("{BASH}_vmrepl_values {}", axis.values),
        Language::JavaScript => format!("({JAVASCRIPT})(({}), {text})", axis.values),
        _ => format!("{QUESTION}_vmrepl_values(({}), {text})", axis.values),
    };
    let mut heard = Heard::default();
    let id = format!("values-{}", axis.name);
    let answer = machine.run_cell(&id, &Cell::new(code), &mut heard)?;
    let wrong = |problem: String| SessionError::Values {
        name: axis.name.clone(),
        problem,
    };
    if answer.exit_code != 0 {
        let last = answer.error.unwrap_or_default();
        let last = last.trim_end().lines().next_back().unwrap_or("it failed");
        return Err(wrong(last.to_owned()));
    }
    serde_json::from_slice(&heard.0).map_err(|error| wrong(error.to_string()))
}

/// Tries all settings from where the session stands. `begins` gets what stops a machine's cell, and `each` what a
/// setting came to, as it ends.
///
/// # Errors
/// When the session's checkpoint cannot be restored, a machine is lost or the record cannot be written. A setting whose
/// code fails is a result.
pub fn sweep(
    places: &Places,
    book: &mut Book,
    sweep: &Sweep,
    begins: &(dyn Fn(Interrupter) + Sync),
    each: &(dyn Fn(&Tried) + Sync),
) -> Result<Vec<Tried>, SessionError> {
    let position = book.row.position;
    let field = Field {
        places,
        engine: engine_of(places, &book.row)?,
        store: open_store(places)?,
        row: book.row.clone(),
        at: book.checkpoint(position)?,
        path: book.path().to_owned(),
        sweep,
        begins,
    };
    let next = Mutex::new(0..sweep.settings.len());
    let results = Mutex::new(Vec::new());
    let failure = Mutex::new(None);
    let work = || {
        loop {
            let setting = lock(&next).next();
            let Some(setting) = setting.filter(|_| lock(&failure).is_none()) else {
                return;
            };
            match field.try_one(setting) {
                Ok(tried) => {
                    each(&tried);
                    lock(&results).push(tried);
                }
                Err(error) => *lock(&failure) = Some(error),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..sweep.jobs.clamp(1, sweep.settings.len().max(1)) {
            scope.spawn(work);
        }
    });
    book.row = book
        .history
        .session(&book.row.name)
        .map_err(SessionError::History)?;
    if let Some(error) = lock(&failure).take() {
        return Err(error);
    }
    let mut all = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_by_key(|tried: &Tried| tried.setting);
    Ok(all)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all tries share.
struct Field<'a> {
    places: &'a Places,
    engine: Engine,
    store: Store,
    row: vmrepl_history::SessionRow,
    at: At,
    path: std::path::PathBuf,
    sweep: &'a Sweep,
    begins: &'a (dyn Fn(Interrupter) + Sync),
}

impl Field<'_> {
    fn try_one(&self, setting: usize) -> Result<Tried, SessionError> {
        let mut history = History::open(&self.path).map_err(SessionError::History)?;
        let set = self
            .sweep
            .settings
            .get(setting)
            .map(|set| set.code.as_str());
        let code = format!("{}{}", set.unwrap_or_default(), self.sweep.code);
        let mut machine = restore(
            self.places,
            &self.engine,
            &self.row,
            self.at,
            Purpose::Freeze,
        )?;
        if let Some(limits) = self.sweep.limits {
            machine.set_limits(limits);
        }
        (self.begins)(machine.interrupter());
        let number = history
            .begin(self.row.id, &code)
            .map_err(SessionError::History)?;
        let mut sink = Unwatched;
        let mut recorder = Recorder::new(&mut sink);
        let cell = Cell {
            number: Some(number),
            ..Cell::new(&code)
        };
        let answer = machine.run_cell(&format!("c{number}"), &cell, &mut recorder);
        let outcome = recorder.outcome(&answer);
        let frozen = match &answer {
            Ok(_) if machine.is_alive() => machine
                .freeze()
                .ok()
                .filter(|_| machine.control.confirm().is_ok()),
            _ => None,
        };
        drop(machine);
        let mut tried = Tried {
            setting,
            number,
            status: outcome.status.clone(),
            result: answer
                .as_ref()
                .ok()
                .and_then(|answer| answer.result_repr.clone()),
            output: outcome.output.clone(),
            error: match &answer {
                Ok(answer) => answer.error.clone(),
                Err(error) => Some(error.to_string()),
            },
            took_us: outcome.took_us,
            has_checkpoint: false,
        };
        tried.has_checkpoint = self.keep(&mut history, number, outcome, frozen)?;
        if let Err(error @ SessionError::Stopped) = answer {
            return Err(error);
        }
        Ok(tried)
    }

    fn keep(
        &self,
        history: &mut History,
        number: u32,
        outcome: Outcome,
        frozen: Option<crate::checkpoint::Frozen>,
    ) -> Result<bool, SessionError> {
        let Some(frozen) = frozen else {
            history
                .end(self.row.id, number, &outcome, None)
                .map_err(SessionError::History)?;
            return Ok(false);
        };
        let ended = Ended {
            session: self.row.id,
            number,
            outcome,
            frozen,
            before: self.at.snapshot,
            manner: Manner::Beside,
        };
        ended.write_down(&self.store, history)?;
        Ok(true)
    }
}
