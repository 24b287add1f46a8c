//! What a session that lasts stands on: its record, the store, and what goes on behind the answers.
//!
//! Ordering requirements:
//! 1. One checkpoint is stored before the next cell begins: each lies over the one before.

use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use vmrepl_history::{History, Outcome};
use vmrepl_machine::Machine;
use vmrepl_snapshots::Store;

use crate::apart;
use crate::book::Book;
use crate::checkpoint::{Ended, Frozen, Manner, Written};
use crate::error::SessionError;
use crate::guest::Control;
use crate::in_place::Moments;
use crate::policy::Policy;
use crate::stored::At;

/// What makes a session last.
#[derive(Debug)]
pub(crate) struct Lasting {
    pub(crate) book: Book,
    store: Store,
    /// The checkpoint of the cell that the session stands at.
    pub(crate) at: At,
    /// The cell whose checkpoint is being stored.
    writing: Option<Writing>,
    /// The machine is gone, or is not what the record says.
    pub(crate) is_stale: bool,
    pub(crate) moments: Moments,
    /// That the session fell back, until somebody is told.
    pub(crate) fallen_back: Option<FellBack>,
    pub(crate) policy: Policy,
    /// The machine alone has the state after the cell that the session stands at.
    pub(crate) unstored: bool,
}

#[derive(Debug)]
struct Writing {
    number: u32,
    thread: JoinHandle<Result<Written, SessionError>>,
    /// Ends when the machine is not needed for it any longer.
    needs_machine: Receiver<()>,
}

/// A session stands where it stood before its last cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FellBack {
    /// The cell that it stands at.
    pub position: u32,
    /// The cell that failed, whose state is kept as a branch; without one nothing is left of it.
    pub kept: Option<u32>,
}

impl Lasting {
    pub(crate) fn new(book: Book, store: Store, at: At) -> Self {
        Self {
            book,
            store,
            at,
            writing: None,
            is_stale: false,
            moments: Moments::default(),
            fallen_back: None,
            policy: Policy::default(),
            unstored: false,
        }
    }

    /// Waits until the last cell's checkpoint is stored.
    pub(crate) fn settle(&mut self) -> Result<(), SessionError> {
        let Some(Writing { number, thread, .. }) = self.writing.take() else {
            return Ok(());
        };
        let lost = || SessionError::MachineLost {
            why: "the thread that stores its checkpoint is gone".to_owned(),
        };
        match thread.join().unwrap_or_else(|_| Err(lost())) {
            Ok(written) => {
                self.book.row.position = number;
                self.at = apart::at(&written.checkpoint);
                if written.is_heavy {
                    self.is_stale = true;
                    self.moments.clear();
                }
                Ok(())
            }
            Err(source) => {
                self.fall_back();
                Err(SessionError::NotStored {
                    number,
                    position: self.book.row.position,
                    source: Box::new(source),
                })
            }
        }
    }

    /// Waits until the machine is not needed any longer, and without it until the last checkpoint is stored.
    pub(crate) fn leave(mut self, machine: Machine) -> Result<(), SessionError> {
        if let Some(writing) = &self.writing {
            // Nothing is ever sent.
            writing.needs_machine.recv().ok();
        }
        machine.leave();
        self.settle()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn next_number(&self) -> u32 {
        self.book.row.next
    }

    /// It has a machine that was restored there.
    pub(crate) fn awake(mut self, machine: &Machine) -> Self {
        self.is_stale = false;
        self.moments = Moments::begin(machine, self.book.row.position);
        self
    }

    pub(crate) fn fall_back(&mut self) {
        self.is_stale = true;
        self.fallen_back = Some(FellBack {
            position: self.book.row.position,
            kept: None,
        });
        if self.unstored {
            // What only the machine had is gone with it.
            self.unstored = false;
            self.book.go_to_stored().ok();
            self.fallen_back = Some(FellBack {
                position: self.book.row.position,
                kept: None,
            });
        }
    }

    /// Writes down a cell whose state nobody stores for now.
    pub(crate) fn pass(&mut self, number: u32, outcome: &Outcome) -> Result<(), SessionError> {
        self.book
            .history
            .end_unstored(self.book.row.id, number, outcome)
            .map_err(SessionError::History)?;
        self.book.row.position = number;
        self.unstored = true;
        Ok(())
    }

    pub(crate) fn begin(&mut self, code: &str) -> Result<u32, SessionError> {
        let number = self.book.history.begin(self.book.row.id, code);
        let number = number.map_err(SessionError::History)?;
        self.book.row.next = number + 1;
        Ok(number)
    }

    pub(crate) fn end_without(
        &mut self,
        number: u32,
        outcome: &Outcome,
    ) -> Result<(), SessionError> {
        self.fall_back();
        self.book
            .history
            .end(self.book.row.id, number, outcome, None)
            .map_err(SessionError::History)
    }

    /// Stores a checkpoint while whoever ran the cell reads its answer.
    pub(crate) fn write(
        &mut self,
        number: u32,
        outcome: Outcome,
        frozen: Frozen,
        manner: Manner,
        control: Control,
    ) -> Result<(), SessionError> {
        self.unstored = false;
        let (store, path) = (self.store.clone(), self.book.path().to_owned());
        let mark = frozen.mark;
        let ended = Ended {
            session: self.book.row.id,
            number,
            outcome,
            frozen,
            before: self.at.snapshot,
            manner,
        };
        let (held_by_writer, needs_machine) = std::sync::mpsc::channel();
        let write = move || {
            let mut history = History::open(&path).map_err(SessionError::History)?;
            let confirmed = control.confirm();
            drop(held_by_writer);
            if let Err(error) = confirmed {
                ended.give_up(&mut history)?;
                return Err(error);
            }
            ended.write_down(&store, &mut history)
        };
        self.moments.push(number, mark);
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(write)
            .map_err(|source| SessionError::Guest {
                step: "start the thread that stores a checkpoint",
                source,
            });
        match thread {
            Ok(thread) => {
                self.writing = Some(Writing {
                    number,
                    thread,
                    needs_machine,
                });
                Ok(())
            }
            Err(error) => {
                self.fall_back();
                Err(error)
            }
        }
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        // Whoever wants to know how it went has asked before.
        drop(self.settle());
    }
}
