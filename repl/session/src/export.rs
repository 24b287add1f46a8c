//! A session as a notebook or a script: the cells that led to where it stands.

use serde_json::{Map, Value, json};
use vmrepl_history::{CellRow, History, SessionRow};
use vmrepl_wire::cell::Event;

use crate::book::open_history;
use crate::command::{command_of, is_aside};
use crate::error::SessionError;
use crate::name::SessionName;
use crate::places::Places;

/// What a session becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportForm {
    /// A Jupyter notebook with the outputs, nbformat 4.5.
    Notebook,
    /// The session's language, a comment before each cell.
    Script,
}

/// Writes out the cells that led to where a session stands; those that were undone are no part of it.
///
/// # Errors
/// When there is no such session, or the record cannot be read.
pub fn export_session(
    places: &Places,
    name: &SessionName,
    form: ExportForm,
) -> Result<String, SessionError> {
    let history = open_history(places)?;
    let (session, cells) = read(&history, name).map_err(SessionError::History)?;
    Ok(match form {
        ExportForm::Notebook => notebook(&session, &cells),
        ExportForm::Script => script(&session, &cells),
    })
}

fn read(
    history: &History,
    name: &SessionName,
) -> Result<(SessionRow, Vec<CellRow>), vmrepl_history::HistoryError> {
    let session = history.session(name.as_str())?;
    let way = history.way_to(session.id, session.position)?;
    let cells = way
        .into_iter()
        .map(|number| history.cell(session.id, number))
        .collect::<Result<_, _>>()?;
    Ok((session, cells))
}

fn script(session: &SessionRow, cells: &[CellRow]) -> String {
    let comment = comment_of(session);
    let mut text = format!(
        "{comment} session {}, template {}\n",
        session.name, session.template
    );
    for cell in cells {
        text.push_str(&format!("\n{comment} %% [{}]\n", cell.number));
        let code = cell.code.trim_end();
        // What is of another language would keep the script from being one.
        let is_code = command_of(code).is_none() && !is_aside(code);
        for line in code.lines() {
            if !is_code {
                text.push_str(comment);
                text.push(' ');
            }
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The form is described at <https://nbformat.readthedocs.io/en/latest/format_description.html>.
fn notebook(session: &SessionRow, cells: &[CellRow]) -> String {
    let comment = comment_of(session);
    let cells: Vec<Value> = cells
        .iter()
        .map(|cell| notebook_cell(cell, comment))
        .collect();
    // Kernels by the names that they are known by.
    let (kernel, shown) = match session.language.as_str() {
        "javascript" => ("javascript", "JavaScript (Node.js)"),
        "bash" => ("bash", "Bash"),
        _ => ("python3", "Python 3"),
    };
    let notebook = json!({
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"name": kernel, "display_name": shown, "language": session.language},
            "language_info": {"name": session.language},
            "vmrepl": {"session": session.name, "template": session.template},
        },
        "cells": cells,
    });
    let mut text = serde_json::to_string_pretty(&notebook).expect("a value becomes JSON");
    text.push('\n');
    text
}

/// What begins a comment in the session's language.
fn comment_of(session: &SessionRow) -> &'static str {
    match session.language.as_str() {
        "javascript" => "//",
        _ => "#",
    }
}

fn notebook_cell(cell: &CellRow, comment: &str) -> Value {
    let mut outputs = Vec::new();
    if let Some(outcome) = &cell.outcome {
        if !outcome.output.is_empty() {
            outputs
                .push(json!({"output_type": "stream", "name": "stdout", "text": outcome.output}));
        }
        let kept: Value = serde_json::from_str(&outcome.answer).unwrap_or_default();
        let shown: Vec<Event> = serde_json::from_value(kept["shown"].clone()).unwrap_or_default();
        outputs.extend(shown.iter().filter_map(|event| output(event, cell.number)));
    }
    json!({
        "cell_type": "code",
        "id": format!("cell-{}", cell.number),
        "execution_count": cell.number,
        "metadata": {},
        "source": if is_aside(&cell.code) { format!("{comment} {}", cell.code) } else { cell.code.clone() },
        "outputs": outputs,
    })
}

/// An event as an output. Tables of names are no output of a notebook's cell.
fn output(event: &Event, number: u32) -> Option<Value> {
    match event {
        Event::Display(shown) | Event::Result(shown) => {
            let bundle = serde_json::to_value(&shown.bundle).ok()?;
            let data = forms(&bundle["data"]);
            Some(match event {
                Event::Result(_) => {
                    json!({"output_type": "execute_result", "execution_count": number,
                    "data": data, "metadata": {}})
                }
                _ => json!({"output_type": "display_data", "data": data, "metadata": {}}),
            })
        }
        Event::Error(raised) => Some(json!({
            "output_type": "error",
            "ename": raised.name,
            "evalue": raised.value,
            "traceback": raised.traceback.lines().collect::<Vec<_>>(),
        })),
        _ => None,
    }
}

/// Only JSON's own types may hold anything but text.
fn forms(data: &Value) -> Map<String, Value> {
    let is_fine = |mime: &str, value: &Value| {
        value.is_string() || mime == "application/json" || mime.ends_with("+json")
    };
    let all = data.as_object().into_iter().flatten();
    all.filter(|(mime, value)| is_fine(mime, value))
        .map(|(mime, value)| (mime.clone(), value.clone()))
        .collect()
}
