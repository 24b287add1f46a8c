//! A session's record under its lock: where it stands, which cells there are, what each left.
//!
//! Ordering requirements:
//! 1. The lock before the record is read: two processes that both think they stand at a cell would each run one.
//! 2. Cells that still run are called lost before another begins.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};
use vmrepl_history::{CellRow, Checkpoint, History, SessionRow};

use crate::apart;
use crate::error::SessionError;
use crate::limits::{LOCK_OUTLIVES, LOOK_EVERY};
use crate::name::SessionName;
use crate::places::Places;
use crate::stored::At;
use vmrepl_wire::languages::Language;

/// The record of all sessions, in the folder of sessions.
const FILE: &str = "history.sqlite";

/// Who holds a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    since_s: u64,
}

/// A session's lock. It goes with the process, however that ends.
#[derive(Debug)]
struct Lock {
    _file: File,
}

/// One session's record. While this lives, nobody else runs cells in it or moves it.
#[derive(Debug)]
pub struct Book {
    pub(crate) history: History,
    pub(crate) row: SessionRow,
    path: PathBuf,
    /// Cells that were running when an earlier process ended without a word.
    lost: Vec<u32>,
    _lock: Lock,
}

/// Opens the record of all sessions, which needs no lock.
///
/// # Errors
/// When it cannot be opened.
pub fn open_history(places: &Places) -> Result<History, SessionError> {
    History::open(&folder(places)?.join(FILE)).map_err(SessionError::History)
}

fn folder(places: &Places) -> Result<&Path, SessionError> {
    let path = places.sessions.as_path();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| SessionError::File {
            verb: "make the folder of sessions",
            path: path.display().to_string(),
            source,
        })?;
    Ok(path)
}

impl Holder {
    fn read(file: &mut File) -> Option<Self> {
        let mut text = String::new();
        file.rewind().ok()?;
        file.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    fn is_gone(&self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
    }
}

impl Lock {
    fn take(places: &Places, name: &SessionName, patience: Duration) -> Result<Self, SessionError> {
        let path = folder(places)?.join(format!("{name}.lock"));
        let failed = |source: std::io::Error| SessionError::File {
            verb: "lock",
            path: path.display().to_string(),
            source,
        };
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
                Err(std::fs::TryLockError::WouldBlock) => {}
            }
            let holder = Holder::read(&mut file);
            // Of one that was killed while it started a process, the child has the lock until it hears of that.
            let is_dying = holder.as_ref().is_some_and(Holder::is_gone);
            let patience = if is_dying {
                patience.max(LOCK_OUTLIVES)
            } else {
                patience
            };
            if began.elapsed() >= patience {
                return Err(SessionError::Busy {
                    name: name.to_string(),
                    pid: holder.as_ref().map(|holder| holder.pid),
                    for_s: holder.map(|holder| now_s().saturating_sub(holder.since_s)),
                });
            }
            std::thread::sleep(LOOK_EVERY.min(patience / 100));
        }
        // Only for the message to whoever finds it held.
        let holder = Holder {
            pid: std::process::id(),
            since_s: now_s(),
        };
        let text = serde_json::to_vec(&holder).expect("numbers become JSON");
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(&text))
            .map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Book {
    /// Opens the record of a session, once nobody else has it. None when there is no such session; its name is then
    /// held for whoever makes one.
    fn take(
        places: &Places,
        name: &SessionName,
        patience: Duration,
    ) -> Result<Result<Self, Unwritten>, SessionError> {
        let lock = Lock::take(places, name, patience)?;
        let path = folder(places)?.join(FILE);
        let mut history = History::open(&path).map_err(SessionError::History)?;
        let Some(mut row) = history.find(name.as_str()).map_err(SessionError::History)? else {
            return Ok(Err(Unwritten {
                history,
                path,
                lock,
            }));
        };
        let mut lost = history
            .go_to_stored(row.id)
            .map_err(SessionError::History)?;
        if !lost.is_empty() {
            row = history
                .session(name.as_str())
                .map_err(SessionError::History)?;
        }
        lost.extend(history.mark_lost(row.id).map_err(SessionError::History)?);
        Ok(Ok(Self {
            history,
            row,
            path,
            lost,
            _lock: lock,
        }))
    }

    /// Opens the record of a session that is there.
    ///
    /// # Errors
    /// When there is none, another process has it, or the record cannot be read.
    pub fn open(
        places: &Places,
        name: &SessionName,
        patience: Duration,
    ) -> Result<Self, SessionError> {
        Self::take(places, name, patience)?.map_err(|_| {
            SessionError::History(vmrepl_history::HistoryError::NoSession {
                name: name.to_string(),
            })
        })
    }

    /// Opens the record of a session, and writes one down where there is none.
    pub(crate) fn open_or_create(
        places: &Places,
        name: &SessionName,
        patience: Duration,
        create: impl FnOnce() -> Result<Seed, SessionError>,
    ) -> Result<(Self, bool), SessionError> {
        match Self::take(places, name, patience)? {
            Ok(book) => Ok((book, false)),
            Err(unwritten) => {
                let seed = create()?;
                let new = vmrepl_history::NewSession {
                    name: name.as_str(),
                    engine: seed.engine,
                    template: &seed.template,
                    language: seed.language.name(),
                    base: Checkpoint {
                        snapshot: *seed.base.snapshot.as_bytes(),
                        generation: seed.base.generation,
                        pages: 0,
                        memory_bytes: None,
                    },
                };
                let mut history = unwritten.history;
                let row = history.create(&new).map_err(SessionError::History)?;
                Ok((
                    Self {
                        history,
                        row,
                        path: unwritten.path,
                        lost: Vec::new(),
                        _lock: unwritten.lock,
                    },
                    true,
                ))
            }
        }
    }

    /// The session, as the record says.
    #[must_use]
    pub fn session(&self) -> &SessionRow {
        &self.row
    }

    /// Cells that were running when an earlier process ended without a word. What they did is gone.
    #[must_use]
    pub fn lost(&self) -> &[u32] {
        &self.lost
    }

    /// Where the file lies: a thread that writes opens it for itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The cell that it stands at.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn here(&self) -> Result<CellRow, SessionError> {
        self.cell(self.row.position)
    }

    /// The cells that led to where it stands, the first one first.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn way(&self) -> Result<Vec<CellRow>, SessionError> {
        let numbers = self.history.way_to(self.row.id, self.row.position);
        numbers
            .map_err(SessionError::History)?
            .into_iter()
            .map(|number| self.cell(number))
            .collect()
    }

    /// The cells that nothing was run after.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn tips(&self) -> Result<Vec<CellRow>, SessionError> {
        self.history
            .tips(self.row.id)
            .map_err(SessionError::History)
    }

    /// The end of the newest branch that a cell is on.
    ///
    /// # Errors
    /// When there is no such cell, or the record cannot be read.
    pub fn tip_of(&self, number: u32) -> Result<u32, SessionError> {
        self.cell(number)?;
        for tip in self.tips()?.iter().rev() {
            let way = self.history.way_to(self.row.id, tip.number);
            if tip.checkpoint.is_some() && way.map_err(SessionError::History)?.contains(&number) {
                return Ok(tip.number);
            }
        }
        Ok(number)
    }

    /// One cell.
    ///
    /// # Errors
    /// When there is none of this number, or the record cannot be read.
    pub fn cell(&self, number: u32) -> Result<CellRow, SessionError> {
        self.history
            .cell(self.row.id, number)
            .map_err(SessionError::History)
    }

    /// The checkpoint of a cell.
    pub(crate) fn checkpoint(&self, number: u32) -> Result<At, SessionError> {
        apart::checkpoint(&self.history, &self.row, number)
    }

    /// Goes back so many cells. Returns where the session stands then.
    ///
    /// # Errors
    /// When there are fewer, or the record cannot be written.
    pub fn undo(&mut self, steps: u32) -> Result<u32, SessionError> {
        let to = self.history.back(self.row.id, steps);
        self.go(to.map_err(SessionError::History)?)
    }

    /// Goes forward again so many cells, towards where the session stood before it moved.
    ///
    /// # Errors
    /// When there are fewer, or the record cannot be written.
    pub fn redo(&mut self, steps: u32) -> Result<u32, SessionError> {
        let to = self.history.forward(self.row.id, steps);
        self.go(to.map_err(SessionError::History)?)
    }

    /// Goes back to the last cell on the way whose state is stored.
    pub(crate) fn go_to_stored(&mut self) -> Result<(), SessionError> {
        self.history
            .go_to_stored(self.row.id)
            .map_err(SessionError::History)?;
        self.row = self
            .history
            .session(&self.row.name)
            .map_err(SessionError::History)?;
        Ok(())
    }

    /// Forgets the session and its cells; what only they needed is collected later.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn remove(&mut self) -> Result<(), SessionError> {
        self.history
            .remove(self.row.id)
            .map_err(SessionError::History)
    }

    /// Goes to a cell.
    ///
    /// # Errors
    /// When there is none of this number, it left no checkpoint, or the record cannot be written.
    pub fn go(&mut self, number: u32) -> Result<u32, SessionError> {
        self.checkpoint(number)?;
        self.history
            .go(self.row.id, number)
            .map_err(SessionError::History)?;
        self.row.position = number;
        Ok(number)
    }
}

/// What a new session begins with.
pub(crate) struct Seed {
    pub(crate) engine: &'static str,
    pub(crate) template: String,
    pub(crate) language: Language,
    pub(crate) base: At,
}

/// A name that is held and has no session yet.
struct Unwritten {
    history: History,
    path: PathBuf,
    lock: Lock,
}
