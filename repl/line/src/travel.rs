//! Commands of a session with a name: where it can go, and what differs there.

use vmrepl_session::{
    CellRow, Difference, Policy, ROOT, Session, SessionError, SnapshotWhen, Variable,
};

use crate::commands::{facts, steps};
use crate::face::{Face, LineError, Next};
use crate::screen::Screen;

/// Characters of code in a line.
const CODE_CHARS: usize = 50;

/// `:history`: the cells that led here, in a session with a name.
pub(crate) fn way(
    session: &mut Session,
    screen: &mut Screen<'_>,
    last: usize,
) -> Result<bool, SessionError> {
    let Some(book) = session.book()? else {
        return Ok(false);
    };
    let way = book.way()?;
    for cell in &way[way.len().saturating_sub(last)..] {
        let mark = if cell.has_failed() { '!' } else { ' ' };
        let code = cell.code.trim_end().replace('\n', "\n        ");
        screen.say(&format!("{mark}[{:>3}]  {code}", cell.number));
    }
    if way.is_empty() {
        screen.say("no cell has run yet");
    }
    Ok(true)
}

/// `:branches`.
pub(crate) fn branches(session: &mut Session, screen: &mut Screen<'_>) -> Result<(), SessionError> {
    let book = session.book()?.ok_or(SessionError::Nameless)?;
    let here = book.session().position;
    let tips = book.tips()?;
    for tip in &tips {
        let mark = if tip.number == here { '*' } else { ' ' };
        screen.say(&format!("{mark} {:>4}  {}", tip.number, line_of(tip)));
    }
    if tips.is_empty() {
        screen.say("no cell has run yet");
    }
    Ok(())
}

fn line_of(cell: &CellRow) -> String {
    let status = cell
        .outcome
        .as_ref()
        .map_or("lost", |outcome| &outcome.status);
    let line = cell.code.trim().lines().next().unwrap_or_default();
    let code: String = line.chars().take(CODE_CHARS).collect();
    format!("{status:<12}  {code}")
}

/// `:switch`: to the end of the branch that a cell is on.
pub(crate) fn switch(
    face: &mut Face,
    screen: &mut Screen<'_>,
    word: &str,
) -> Result<Next, LineError> {
    let Ok(number) = word.parse::<u32>() else {
        screen.trouble("say which branch, such as :switch 7; :branches lists them");
        return Ok(Next::Prompt);
    };
    face.go(screen, |session| {
        let book = session.book()?.ok_or(SessionError::Nameless)?;
        let tip = book.tip_of(number)?;
        session.go_to(tip)
    })
}

/// `:diff [CELL [CELL]]`: against the cell before, one cell, or two with each other.
pub(crate) fn diff(
    session: &mut Session,
    screen: &mut Screen<'_>,
    words: &str,
) -> Result<(), SessionError> {
    let numbers: Result<Vec<u32>, _> = words.split_whitespace().map(str::parse).collect();
    let Ok(numbers) = numbers else {
        screen.trouble("say which cells, such as :diff 3, or :diff 3 9");
        return Ok(());
    };
    let book = session.book()?.ok_or(SessionError::Nameless)?;
    let here = book.session().position;
    let parent = book.here()?.parent.unwrap_or(ROOT);
    let (before, after) = match numbers[..] {
        [] => (parent, here),
        [before] => (before, here),
        [before, after, ..] => (before, after),
    };
    let found = session.diff(before, after)?;
    for one in &found {
        screen.say(&match one {
            Difference::Added(new) => format!("+ {}  {}", new.name, told(new)),
            Difference::Removed(old) => format!("- {}  {}", old.name, told(old)),
            Difference::Changed(old, new) => {
                format!("~ {}  {}  ->  {}", new.name, told(old), told(new))
            }
        });
    }
    if found.is_empty() {
        screen.say(&format!("no name differs between {before} and {after}"));
    }
    Ok(())
}

fn told(variable: &Variable) -> String {
    format!("{} {}", variable.type_name, facts(variable, false))
}

/// `:keep`: which cells leave a checkpoint.
pub(crate) fn keep(
    session: &mut Session,
    screen: &mut Screen<'_>,
    word: &str,
) -> Result<(), SessionError> {
    let policy = session.policy().ok_or(SessionError::Nameless)?;
    let snapshot = match word {
        "" => policy.snapshot,
        "on" => SnapshotWhen::OnCell,
        "failures" => SnapshotWhen::OnFailure,
        "off" => SnapshotWhen::Off,
        _ => {
            screen.trouble("say :keep on, :keep failures or :keep off");
            return Ok(());
        }
    };
    session.set_policy(Policy { snapshot, ..policy })?;
    screen.say(match snapshot {
        SnapshotWhen::OnCell => "each cell leaves a checkpoint",
        SnapshotWhen::OnFailure => "cells that fail leave a checkpoint, and the last one",
        SnapshotWhen::Off => {
            "only the last cell leaves a checkpoint, when you leave or move; a crash loses the others"
        }
    });
    Ok(())
}

/// `:undo` and `:redo`.
pub(crate) fn step(
    face: &mut Face,
    screen: &mut Screen<'_>,
    word: &str,
    go: fn(&mut Session, u32) -> Result<u32, SessionError>,
) -> Result<Next, LineError> {
    match steps(word) {
        Ok(count) => face.go(screen, |session| go(session, count)),
        Err(trouble) => {
            screen.trouble(&trouble);
            Ok(Next::Prompt)
        }
    }
}
