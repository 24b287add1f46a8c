//! Cells, from their beginning to their end.
//!
//! Ordering requirements:
//! 1. A cell is written down before it runs: one that ends its host is known as lost, not unknown.
//! 2. Its checkpoint is published before it is named here, and one commit says how the cell ended, what it left and
//!    that the session stands there.

use rusqlite::{OptionalExtension as _, Transaction, params};

use crate::error::{HistoryError, failed};
use crate::history::{History, now_ms};
use crate::record::{CELL_COLUMNS, CellRow, CellState, Checkpoint, Outcome, SessionId};

impl History {
    /// Writes down a cell that is about to run after the one that the session stands at. Returns its number.
    ///
    /// It outlives its process, whatever ends that. A host that loses its power may forget it: then nothing of the cell is
    /// left, not even that it was begun.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn begin(&mut self, session: SessionId, code: &str) -> Result<u32, HistoryError> {
        let step = "write down a cell";
        let sync = |history: &Self, word: &str| {
            let set = history.connection.pragma_update(None, "synchronous", word);
            set.map_err(failed(step))
        };
        // Somebody waits for the cell.
        sync(self, "normal")?;
        let begun = self.write_begin(session, code);
        sync(self, "full")?;
        begun
    }

    fn write_begin(&mut self, session: SessionId, code: &str) -> Result<u32, HistoryError> {
        let step = "write down a cell";
        self.together(step, |transaction| {
            let (number, parent): (u32, u32) = transaction
                .query_row(
                    "UPDATE session SET next = next + 1 WHERE id = ?1 RETURNING next - 1, position",
                    [session.0],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .map_err(failed(step))?;
            transaction
                .execute(
                    "INSERT INTO cell (session, number, parent, state, code, began_ms)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![
                        session.0,
                        number,
                        parent,
                        CellState::Running,
                        code,
                        now_ms()
                    ],
                )
                .map_err(failed(step))?;
            Ok(number)
        })
    }

    /// Says how a cell ended. With a checkpoint the session stands there from now on; without one it stays where it
    /// was, and the cell is a branch without an end that anybody can go to.
    ///
    /// # Errors
    /// When there is no such cell, or the file cannot be written.
    pub fn end(
        &mut self,
        session: SessionId,
        number: u32,
        outcome: &Outcome,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), HistoryError> {
        self.together("write down a cell's end", |transaction| {
            note_end(transaction, session, number, outcome, checkpoint)?;
            if checkpoint.is_some() {
                stand_at(transaction, session, number)?;
            }
            Ok(())
        })
    }

    /// Says how a cell ended that ran beside the session: that stays where it is, and can go there.
    ///
    /// # Errors
    /// When there is no such cell, or the file cannot be written.
    pub fn end_beside(
        &mut self,
        session: SessionId,
        number: u32,
        outcome: &Outcome,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), HistoryError> {
        self.together("write down a cell's end", |transaction| {
            note_end(transaction, session, number, outcome, checkpoint)
        })
    }

    /// Calls the cells lost that nobody can be running. To be called under the session's lock, before anything runs.
    /// Returns their numbers.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn mark_lost(&mut self, session: SessionId) -> Result<Vec<u32>, HistoryError> {
        let step = "look for lost cells";
        let mut statement = self
            .connection
            .prepare_cached(
                "UPDATE cell SET state = ?2 WHERE session = ?1 AND state = ?3 RETURNING number",
            )
            .map_err(failed(step))?;
        let lost = statement
            .query_map(
                params![session.0, CellState::Lost, CellState::Running],
                |row| row.get(0),
            )
            .map_err(failed(step))?;
        let mut lost: Vec<u32> = lost.collect::<Result<_, _>>().map_err(failed(step))?;
        lost.sort_unstable();
        Ok(lost)
    }

    /// One cell.
    ///
    /// # Errors
    /// When there is none of this number, or the file cannot be read.
    pub fn cell(&self, session: SessionId, number: u32) -> Result<CellRow, HistoryError> {
        let query = format!("SELECT {CELL_COLUMNS} FROM cell WHERE session = ?1 AND number = ?2");
        self.connection
            .query_row(&query, params![session.0, number], CellRow::of)
            .optional()
            .map_err(failed("read a cell"))?
            .ok_or(HistoryError::NoCell { number })
    }

    /// All cells but the root, in the order in which they ran.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn cells(&self, session: SessionId) -> Result<Vec<CellRow>, HistoryError> {
        let step = "read the cells";
        let query = format!(
            "SELECT {CELL_COLUMNS} FROM cell WHERE session = ?1 AND number > 0 ORDER BY number"
        );
        let mut statement = self.connection.prepare(&query).map_err(failed(step))?;
        let rows = statement
            .query_map([session.0], CellRow::of)
            .map_err(failed(step))?;
        rows.collect::<Result<_, _>>().map_err(failed(step))
    }

    /// The cells that nothing was run after, in the order in which they ran.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn tips(&self, session: SessionId) -> Result<Vec<CellRow>, HistoryError> {
        let step = "read the branches";
        let query = format!(
            "SELECT {CELL_COLUMNS} FROM cell AS tip WHERE session = ?1 AND number > 0 AND NOT EXISTS
                 (SELECT 1 FROM cell WHERE cell.session = tip.session AND cell.parent = tip.number)
             ORDER BY number"
        );
        let mut statement = self.connection.prepare(&query).map_err(failed(step))?;
        let rows = statement
            .query_map([session.0], CellRow::of)
            .map_err(failed(step))?;
        rows.collect::<Result<_, _>>().map_err(failed(step))
    }

    /// Says how a cell ended whose state nobody has stored: the session stands there, as long as its machine lives.
    ///
    /// # Errors
    /// When there is no such cell, or the file cannot be written.
    pub fn end_unstored(
        &mut self,
        session: SessionId,
        number: u32,
        outcome: &Outcome,
    ) -> Result<(), HistoryError> {
        self.together("write down a cell's end", |transaction| {
            note_end(transaction, session, number, outcome, None)?;
            stand_at(transaction, session, number)
        })
    }

    /// Says that the state after a cell which has ended is stored now.
    ///
    /// # Errors
    /// When there is no such cell, or the file cannot be written.
    pub fn store(
        &mut self,
        session: SessionId,
        number: u32,
        checkpoint: &Checkpoint,
    ) -> Result<(), HistoryError> {
        let changed = self
            .connection
            .execute(
                "UPDATE cell SET snapshot = ?3, generation = ?4, pages = ?5, memory_bytes = ?6
                 WHERE session = ?1 AND number = ?2",
                params![
                    session.0,
                    number,
                    checkpoint.snapshot,
                    checkpoint.generation.cast_signed(),
                    checkpoint.pages.cast_signed(),
                    checkpoint.memory_bytes.map(u64::cast_signed),
                ],
            )
            .map_err(failed("write down a checkpoint"))?;
        if changed == 0 {
            return Err(HistoryError::NoCell { number });
        }
        Ok(())
    }

    /// Goes back to the last cell on the way whose state is stored, and calls those behind it lost. To be called under the
    /// session's lock, before anything runs. Returns their numbers.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn go_to_stored(&mut self, session: SessionId) -> Result<Vec<u32>, HistoryError> {
        let step = "look for a stored state";
        self.together(step, |transaction| {
            let mut lost = Vec::new();
            let mut at: u32 = transaction
                .query_row(
                    "SELECT position FROM session WHERE id = ?1",
                    [session.0],
                    |row| row.get(0),
                )
                .map_err(failed(step))?;
            loop {
                let (is_stored, parent): (bool, Option<u32>) = transaction
                    .query_row(
                        "SELECT snapshot IS NOT NULL, parent FROM cell WHERE session = ?1 AND number = ?2",
                        params![session.0, at],
                        |row| Ok((row.get(0)?, row.get(1)?)),
                    )
                    .map_err(failed(step))?;
                let Some(parent) = parent.filter(|_| !is_stored) else {
                    break;
                };
                transaction
                    .execute(
                        "UPDATE cell SET state = ?3 WHERE session = ?1 AND number = ?2",
                        params![session.0, at, CellState::Lost],
                    )
                    .map_err(failed(step))?;
                lost.push(at);
                at = parent;
            }
            if !lost.is_empty() {
                stand_at(transaction, session, at)?;
                lost.reverse();
            }
            Ok(lost)
        })
    }
}

fn note_end(
    transaction: &Transaction<'_>,
    session: SessionId,
    number: u32,
    outcome: &Outcome,
    checkpoint: Option<&Checkpoint>,
) -> Result<(), HistoryError> {
    let changed = transaction
        .execute(
            "UPDATE cell SET state = ?3, took_us = ?4, status = ?5, exit_code = ?6, output = ?7,
                 output_dropped = ?8, answer = ?9, snapshot = ?10, generation = ?11, pages = ?12,
                 memory_bytes = ?13
             WHERE session = ?1 AND number = ?2",
            params![
                session.0,
                number,
                CellState::Ended,
                outcome.took_us.cast_signed(),
                outcome.status,
                outcome.exit_code,
                outcome.output,
                outcome.output_dropped.cast_signed(),
                outcome.answer,
                checkpoint.map(|checkpoint| checkpoint.snapshot),
                checkpoint.map(|checkpoint| checkpoint.generation.cast_signed()),
                checkpoint.map(|checkpoint| checkpoint.pages.cast_signed()),
                checkpoint.and_then(|checkpoint| Some(checkpoint.memory_bytes?.cast_signed())),
            ],
        )
        .map_err(failed("write down a cell's end"))?;
    if changed == 0 {
        return Err(HistoryError::NoCell { number });
    }
    Ok(())
}

/// Moves a session. Every cell on the way down to where it stood remembers that way.
pub(crate) fn stand_at(
    transaction: &Transaction<'_>,
    session: SessionId,
    number: u32,
) -> Result<(), HistoryError> {
    let step = "move a session";
    transaction
        .execute(
            "WITH RECURSIVE way (number, parent) AS (
                 SELECT number, parent FROM cell
                 WHERE session = ?1 AND number = (SELECT position FROM session WHERE id = ?1)
                 UNION ALL
                 SELECT cell.number, cell.parent FROM cell JOIN way ON cell.number = way.parent
                 WHERE cell.session = ?1
             )
             UPDATE cell SET forward = (SELECT way.number FROM way WHERE way.parent = cell.number)
             WHERE session = ?1 AND number IN (SELECT parent FROM way)",
            [session.0],
        )
        .map_err(failed(step))?;
    transaction
        .execute(
            "UPDATE session SET position = ?2, used_ms = ?3 WHERE id = ?1",
            params![session.0, number, now_ms()],
        )
        .map_err(failed(step))?;
    Ok(())
}
