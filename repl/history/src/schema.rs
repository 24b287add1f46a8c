//! The tables, and how a file comes to have them.

use rusqlite::Connection;

/// The version of the tables below, kept in the file's `user_version`.
pub(crate) const VERSION: u32 = 1;

/// `forward` is the child that was left last. Times are milliseconds since 1970. What is JSON is read by nobody here.
const TABLES: &str = "
CREATE TABLE session (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    engine     TEXT NOT NULL,
    template   TEXT NOT NULL,
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
    PRIMARY KEY (session, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX cell_snapshot ON cell (snapshot) WHERE snapshot IS NOT NULL;
";

/// Makes the tables where there are none. Returns the version found.
pub(crate) fn apply(connection: &mut Connection) -> rusqlite::Result<u32> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.execute_batch(&format!("PRAGMA user_version = {VERSION}"))?;
        transaction.commit()?;
        return Ok(VERSION);
    }
    Ok(found)
}
