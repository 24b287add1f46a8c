//! Sessions against a model of them, and what processes do to one file.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails the test that calls it"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use vmrepl_history::{
    CellState, Checkpoint, History, HistoryError, NewSession, Outcome, ROOT, SessionRow,
};

fn checkpoint(mark: u8) -> Checkpoint {
    Checkpoint {
        snapshot: [mark; 16],
        generation: u64::from(mark) + 1,
        pages: 1 << 40,
        memory_bytes: mark.is_multiple_of(2).then_some(1 << 41),
    }
}

fn new(name: &str) -> NewSession<'_> {
    NewSession {
        name,
        engine: "qemu",
        template: "base",
        language: "python",
        base: checkpoint(0),
    }
}

fn outcome(code: &str) -> Outcome {
    Outcome {
        status: "ok".to_owned(),
        exit_code: 0,
        took_us: u64::MAX >> 1,
        output: format!("{code} \0 ü\n"),
        output_dropped: 3,
        answer: "{}".to_owned(),
    }
}

/// Runs a cell to its end.
fn run(history: &mut History, session: &SessionRow, code: &str, mark: Option<u8>) -> u32 {
    let number = history.begin(session.id, code).unwrap();
    let left = mark.map(checkpoint);
    history
        .end(session.id, number, &outcome(code), left.as_ref())
        .unwrap();
    number
}

fn position(history: &History, name: &str) -> u32 {
    history.session(name).unwrap().position
}

#[test]
fn undo_keeps_what_was_undone() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = History::open(&folder.path().join("history.sqlite")).unwrap();
    let session = history.create(&new("t")).unwrap();
    for (code, mark) in [("x = 1", 1), ("x += 1", 2), ("x += 2", 3)] {
        run(&mut history, &session, code, Some(mark));
    }
    assert_eq!(position(&history, "t"), 3);
    assert_eq!(history.back(session.id, 2).unwrap(), 1);
    history.go(session.id, 1).unwrap();
    assert_eq!(history.forward(session.id, 2).unwrap(), 3);
    // Another branch, and back to the first.
    assert_eq!(run(&mut history, &session, "x = 7", Some(4)), 4);
    let cell = history.cell(session.id, 4).unwrap();
    assert_eq!(cell.parent, Some(1));
    assert_eq!(cell.outcome, Some(outcome("x = 7")));
    assert_eq!(cell.checkpoint, Some(checkpoint(4)));
    history.go(session.id, 3).unwrap();
    history.go(session.id, ROOT).unwrap();
    assert_eq!(history.forward(session.id, 3).unwrap(), 3);
    assert!(matches!(
        history.back(session.id, 1),
        Err(HistoryError::TooFar { found: 0, .. })
    ));
    assert!(matches!(
        history.forward(session.id, 9),
        Err(HistoryError::TooFar { found: 3, .. })
    ));
    assert!(matches!(
        history.go(session.id, 5),
        Err(HistoryError::NoCell { number: 5 })
    ));
}

#[test]
fn a_cell_without_a_checkpoint_moves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = History::open(&folder.path().join("h")).unwrap();
    let session = history.create(&new("t")).unwrap();
    run(&mut history, &session, "x = 1", Some(1));
    assert_eq!(run(&mut history, &session, "1 / 0", None), 2);
    assert_eq!(position(&history, "t"), 1);
    assert_eq!(run(&mut history, &session, "y = 1", Some(3)), 3);
    assert_eq!(history.cell(session.id, 3).unwrap().parent, Some(1));
}

#[test]
fn a_cell_that_never_ended_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h");
    let mut history = History::open(&path).unwrap();
    let session = history.create(&new("t")).unwrap();
    let other = history.create(&new("u")).unwrap();
    let lost = history.begin(session.id, "while True: pass").unwrap();
    let running = history.begin(other.id, "x").unwrap();
    drop(history);
    let mut history = History::open(&path).unwrap();
    assert_eq!(history.mark_lost(session.id).unwrap(), [lost]);
    assert_eq!(history.mark_lost(session.id).unwrap(), []);
    let cell = history.cell(session.id, lost).unwrap();
    assert_eq!((cell.state, cell.outcome), (CellState::Lost, None));
    // The cells of others go on.
    let cell = history.cell(other.id, running).unwrap();
    assert_eq!(cell.state, CellState::Running);
    assert_eq!(position(&history, "t"), ROOT);
}

#[test]
fn a_fork_has_its_own_past() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = History::open(&folder.path().join("h")).unwrap();
    let session = history.create(&new("t")).unwrap();
    for mark in 1..=3 {
        run(&mut history, &session, "x", Some(mark));
    }
    let fork = history.fork(&session, 2, "u").unwrap();
    assert_eq!((fork.position, fork.cells), (2, 2));
    assert_eq!(fork.origin.as_deref(), Some("t@2"));
    assert!(matches!(
        history.fork(&session, 2, "u"),
        Err(HistoryError::Taken { .. })
    ));
    assert!(matches!(
        history.fork(&session, 9, "v"),
        Err(HistoryError::NoCell { number: 9 })
    ));
    assert!(history.find("v").unwrap().is_none());
    history.remove(session.id).unwrap();
    assert!(matches!(
        history.session("t"),
        Err(HistoryError::NoSession { .. })
    ));
    assert_eq!(history.back(fork.id, 2).unwrap(), ROOT);
    assert_eq!(run(&mut history, &fork, "y", Some(9)), 3);
    let needed = [0, 1, 2, 9].map(|mark| [mark; 16]);
    assert_eq!(history.snapshots().unwrap(), needed);
}

#[test]
fn what_is_no_history_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h");
    std::fs::write(
        &path,
        "this is no database, and longer than its header would be",
    )
    .unwrap();
    assert!(matches!(
        History::open(&path),
        Err(HistoryError::Open { .. })
    ));
    let newer = folder.path().join("newer");
    drop(History::open(&newer).unwrap());
    let connection = rusqlite::Connection::open(&newer).unwrap();
    connection.pragma_update(None, "user_version", 4).unwrap();
    drop(connection);
    assert!(matches!(
        History::open(&newer),
        Err(HistoryError::Version { found: 4, .. })
    ));
}

#[test]
fn a_record_of_the_first_version_is_brought_to_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h");
    let mut history = History::open(&path).unwrap();
    let session = history.create(&new("t")).unwrap();
    assert_eq!(run(&mut history, &session, "x", Some(2)), 1);
    let memory = |history: &History| {
        let cell = history.cell(session.id, 1).unwrap();
        cell.checkpoint.unwrap().memory_bytes
    };
    assert_eq!(memory(&history), Some(1 << 41));
    drop(history);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "ALTER TABLE cell DROP COLUMN memory_bytes; ALTER TABLE session DROP COLUMN language; \
             PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(connection);
    for _ in 0..2 {
        let history = History::open(&path).unwrap();
        assert_eq!(memory(&history), None);
        assert_eq!(history.cell(session.id, 1).unwrap().code, "x");
        assert_eq!(history.session("t").unwrap().language, "python");
    }
}

#[test]
fn many_write_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let mut history = History::open(path).unwrap();
                let session = history.create(&new(&format!("t{thread}"))).unwrap();
                for mark in 1..=20 {
                    run(&mut history, &session, "x", Some(mark));
                }
            });
        }
    });
    let history = History::open(&path).unwrap();
    let sessions = history.sessions().unwrap();
    assert_eq!(sessions.len(), 4);
    assert!(sessions.iter().all(|session| session.position == 20));
}

/// What the record should say: parents, and which child was left last.
#[derive(Debug, Default)]
struct Model {
    parents: BTreeMap<u32, u32>,
    forward: BTreeMap<u32, u32>,
    position: u32,
}

impl Model {
    fn way(&self, to: u32) -> Vec<u32> {
        let mut way = vec![to];
        while let Some(parent) = self.parents.get(&way[way.len() - 1]) {
            way.push(*parent);
        }
        way
    }

    fn stand_at(&mut self, number: u32) {
        for pair in self.way(self.position).windows(2) {
            self.forward.insert(pair[1], pair[0]);
        }
        self.position = number;
    }

    fn forward(&self, steps: u32) -> Option<u32> {
        (0..steps).try_fold(self.position, |at, _| self.forward.get(&at).copied())
    }
}

#[derive(Debug, Clone)]
enum Act {
    Run,
    Fail,
    Go(prop::sample::Index),
    Back(u32),
    Forward(u32),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => Just(Act::Run),
        1 => Just(Act::Fail),
        2 => any::<prop::sample::Index>().prop_map(Act::Go),
        3 => (0..4_u32).prop_map(Act::Back),
        3 => (0..4_u32).prop_map(Act::Forward),
    ];
    prop::collection::vec(act, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_walk_is_as_its_model(acts in acts()) {
        let folder = tempfile::tempdir().unwrap();
        let mut history = History::open(&folder.path().join("h")).unwrap();
        let session = history.create(&new("t")).unwrap();
        let mut model = Model::default();
        let mut next = 1;
        for act in acts {
            match act {
                Act::Run | Act::Fail => {
                    let mark = matches!(act, Act::Run).then_some(1);
                    let number = run(&mut history, &session, "x", mark);
                    prop_assert_eq!(number, next);
                    next += 1;
                    if mark.is_some() {
                        model.parents.insert(number, model.position);
                        model.stand_at(number);
                    }
                }
                Act::Go(index) => {
                    let reachable: Vec<u32> =
                        std::iter::once(ROOT).chain(model.parents.keys().copied()).collect();
                    let to = reachable[index.index(reachable.len())];
                    history.go(session.id, to).unwrap();
                    model.stand_at(to);
                }
                Act::Back(steps) => {
                    let expected = model.way(model.position).get(steps as usize).copied();
                    let found = history.back(session.id, steps).ok();
                    prop_assert_eq!(found, expected);
                    if let Some(to) = found {
                        history.go(session.id, to).unwrap();
                        model.stand_at(to);
                    }
                }
                Act::Forward(steps) => {
                    let expected = model.forward(steps);
                    let found = history.forward(session.id, steps).ok();
                    prop_assert_eq!(found, expected);
                    if let Some(to) = found {
                        history.go(session.id, to).unwrap();
                        model.stand_at(to);
                    }
                }
            }
            prop_assert_eq!(position(&history, "t"), model.position);
            let mut way = model.way(model.position);
            way.pop();
            way.reverse();
            prop_assert_eq!(history.way_to(session.id, model.position).unwrap(), way);
        }
    }
}
