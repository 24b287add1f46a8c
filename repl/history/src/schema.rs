//! The tables, and how a file comes to have them.

use rusqlite::Connection;

/// The version of the tables below, kept in the file's `user_version`.
pub(crate) const VERSION: u32 = 3;

/// `forward` is the child that was left last. Times are milliseconds since 1970. What is JSON is read by nobody here.
const TABLES: &str = "
CREATE TABLE session (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    engine     TEXT NOT NULL,
    template   TEXT NOT NULL,
    language   TEXT NOT NULL DEFAULT 'python',
    origin     TEXT,
    position   INTEGER NOT NULL DEFAULT 0,
    next       INTEGER NOT NULL DEFAULT 1,
    created_ms INTEGER NOT NULL,
    used_ms    INTEGER NOT NULL,
    is_pinned  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE cell (
    session        INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    number         INTEGER NOT NULL,
    parent         INTEGER,
    forward        INTEGER,
    state          TEXT NOT NULL,
    code           TEXT NOT NULL,
    began_ms       INTEGER NOT NULL,
    took_us        INTEGER,
    status         TEXT,
    exit_code      INTEGER,
    output         TEXT,
    output_dropped INTEGER,
    answer         TEXT,
    snapshot       BLOB,
    generation     INTEGER,
    pages          INTEGER,
    memory_bytes   INTEGER,
    PRIMARY KEY (session, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX cell_snapshot ON cell (snapshot) WHERE snapshot IS NOT NULL;
";

/// What makes the tables of each earlier version those of the next, beginning with 1.
const STEPS: [&str; VERSION as usize - 1] = [
    "ALTER TABLE cell ADD COLUMN memory_bytes INTEGER;",
    "ALTER TABLE session ADD COLUMN language TEXT NOT NULL DEFAULT 'python';",
];

/// Makes the tables where there are none, and those of this version of earlier ones. Returns the version found then.
pub(crate) fn apply(connection: &mut Connection) -> rusqlite::Result<u32> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let steps: &[&str] = match found {
        0 => &[TABLES],
        1..VERSION => &STEPS[found as usize - 1..],
        VERSION.. => return Ok(found),
    };
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.execute_batch(&format!("PRAGMA user_version = {VERSION}"))?;
    transaction.commit()?;
    Ok(VERSION)
}
