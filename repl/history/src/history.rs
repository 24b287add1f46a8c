//! The file, and the sessions in it.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use crate::error::{HistoryError, failed};
use crate::record::{CellState, NewSession, ROOT, SessionId, SessionRow, SnapshotKey};
use crate::schema::{self, VERSION};

/// How long a write waits for another process.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often one that is refused without a wait tries again.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Pages that the log may have before they are written back.
const LOG_PAGES: u32 = 100;

const SESSION_COLUMNS: &str = "id, name, engine, template, origin, position, next, \
    (SELECT count(*) - 1 FROM cell WHERE cell.session = session.id), created_ms, used_ms, is_pinned, language";

/// The record of all sessions of a home.
#[derive(Debug)]
pub struct History {
    pub(crate) connection: Connection,
}

impl History {
    /// Opens the file, and makes it where there is none.
    ///
    /// # Errors
    /// When it cannot be opened, is no database, or is of a later version.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        let began = Instant::now();
        loop {
            match connect(path) {
                // Of two that make the file a log's at once one is refused, and SQLite waits for nobody there.
                Err(error) if is_busy(&error) && began.elapsed() < PATIENCE => {
                    std::thread::sleep(LOOK_EVERY);
                }
                Err(source) => {
                    return Err(HistoryError::Open {
                        path: path.to_owned(),
                        source,
                    });
                }
                Ok((_, found)) if found != VERSION => {
                    return Err(HistoryError::Version {
                        path: path.to_owned(),
                        found,
                        known: VERSION,
                    });
                }
                Ok((connection, _)) => return Ok(Self { connection }),
            }
        }
    }

    /// Runs steps that count only together.
    pub(crate) fn together<T>(
        &mut self,
        step: &'static str,
        steps: impl FnOnce(&Transaction<'_>) -> Result<T, HistoryError>,
    ) -> Result<T, HistoryError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed(step))?;
        let made = steps(&transaction)?;
        transaction.commit().map_err(failed(step))?;
        Ok(made)
    }

    /// Writes down a new session, which stands at its template.
    ///
    /// # Errors
    /// When the name is taken, or the file cannot be written.
    pub fn create(&mut self, new: &NewSession<'_>) -> Result<SessionRow, HistoryError> {
        self.together("write down a session", |transaction| {
            insert(transaction, new, None)
        })?;
        self.session(new.name)
    }

    /// The session of a name.
    ///
    /// # Errors
    /// When there is none, or the file cannot be read.
    pub fn session(&self, name: &str) -> Result<SessionRow, HistoryError> {
        self.find(name)?.ok_or_else(|| HistoryError::NoSession {
            name: name.to_owned(),
        })
    }

    /// The session of a name, if there is one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn find(&self, name: &str) -> Result<Option<SessionRow>, HistoryError> {
        self.connection
            .query_row(
                &format!("SELECT {SESSION_COLUMNS} FROM session WHERE name = ?1"),
                [name],
                session_of,
            )
            .optional()
            .map_err(failed("look for a session"))
    }

    /// All sessions, the one used last first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sessions(&self) -> Result<Vec<SessionRow>, HistoryError> {
        let step = "list the sessions";
        let query = format!("SELECT {SESSION_COLUMNS} FROM session ORDER BY used_ms DESC, name");
        let mut statement = self.connection.prepare(&query).map_err(failed(step))?;
        let rows = statement.query_map([], session_of).map_err(failed(step))?;
        rows.collect::<Result<_, _>>().map_err(failed(step))
    }

    /// Forgets a session and its cells.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn remove(&mut self, session: SessionId) -> Result<(), HistoryError> {
        self.connection
            .execute("DELETE FROM session WHERE id = ?1", [session.0])
            .map_err(failed("remove a session"))?;
        Ok(())
    }

    /// Keeps a session whatever the budget, or no longer.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn pin(&mut self, session: SessionId, is_pinned: bool) -> Result<(), HistoryError> {
        self.connection
            .execute(
                "UPDATE session SET is_pinned = ?2 WHERE id = ?1",
                params![session.0, is_pinned],
            )
            .map_err(failed("pin a session"))?;
        Ok(())
    }

    /// Nobody can go to the states after these cells any more; what the cells said stays.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn forget_states(
        &mut self,
        session: SessionId,
        numbers: &[u32],
    ) -> Result<(), HistoryError> {
        let step = "forget states";
        self.together(step, |transaction| {
            for number in numbers {
                transaction
                    .execute(
                        "UPDATE cell SET snapshot = NULL, generation = NULL WHERE session = ?1 AND number = ?2",
                        params![session.0, number],
                    )
                    .map_err(failed(step))?;
            }
            Ok(())
        })
    }

    /// The names of the sessions that can go to a state.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sessions_with(&self, snapshot: &SnapshotKey) -> Result<Vec<String>, HistoryError> {
        let step = "look for who needs a snapshot";
        let mut statement = self
            .connection
            .prepare(
                "SELECT DISTINCT session.name FROM cell JOIN session ON session.id = cell.session
                 WHERE cell.snapshot = ?1 ORDER BY 1",
            )
            .map_err(failed(step))?;
        let rows = statement
            .query_map([snapshot], |row| row.get(0))
            .map_err(failed(step))?;
        rows.collect::<Result<_, _>>().map_err(failed(step))
    }

    /// Every snapshot that any session needs, each once.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn snapshots(&self) -> Result<Vec<SnapshotKey>, HistoryError> {
        let step = "list the snapshots that sessions need";
        let mut statement = self
            .connection
            .prepare("SELECT DISTINCT snapshot FROM cell WHERE snapshot IS NOT NULL ORDER BY 1")
            .map_err(failed(step))?;
        let rows = statement
            .query_map([], |row| row.get(0))
            .map_err(failed(step))?;
        rows.collect::<Result<_, _>>().map_err(failed(step))
    }
}

/// Writes down a session with its root.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    new: &NewSession<'_>,
    origin: Option<&str>,
) -> Result<SessionId, HistoryError> {
    let step = "write down a session";
    let now = now_ms();
    let inserted = transaction
        .execute(
            "INSERT INTO session (name, engine, template, language, origin, created_ms, used_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) ON CONFLICT (name) DO NOTHING",
            params![
                new.name,
                new.engine,
                new.template,
                new.language,
                origin,
                now
            ],
        )
        .map_err(failed(step))?;
    if inserted == 0 {
        return Err(HistoryError::Taken {
            name: new.name.to_owned(),
        });
    }
    let id = SessionId(transaction.last_insert_rowid());
    transaction
        .execute(
            "INSERT INTO cell (session, number, state, code, began_ms, snapshot, generation, pages)
             VALUES (?1, ?2, ?3, '', ?4, ?5, ?6, ?7)",
            params![
                id.0,
                ROOT,
                CellState::Ended,
                now,
                new.base.snapshot,
                new.base.generation.cast_signed(),
                new.base.pages.cast_signed(),
            ],
        )
        .map_err(failed(step))?;
    Ok(id)
}

/// Opens the file with its tables. Returns the version of these, too.
fn connect(path: &Path) -> rusqlite::Result<(Connection, u32)> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(PATIENCE)?;
    // Readers never wait for a writer. Each commit is on the disk before it is believed.
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Whoever opens the file alone reads all of the log.
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    // Whoever closes the file last would write all of it back, while somebody waits; the next ones do so in time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let found = schema::apply(&mut connection)?;
    Ok((connection, found))
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}

fn session_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        id: SessionId(row.get(0)?),
        name: row.get(1)?,
        engine: row.get(2)?,
        template: row.get(3)?,
        origin: row.get(4)?,
        position: row.get(5)?,
        next: row.get(6)?,
        cells: row.get(7)?,
        created_ms: row.get(8)?,
        used_ms: row.get(9)?,
        is_pinned: row.get(10)?,
        language: row.get(11)?,
    })
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}
