//! Where a session can go.

use rusqlite::{OptionalExtension as _, params};

use crate::cells::stand_at;
use crate::error::{HistoryError, failed};
use crate::history::History;
use crate::record::SessionId;

impl History {
    /// The cell so many steps back from where the session stands.
    ///
    /// # Errors
    /// When there are fewer, or the file cannot be read.
    pub fn back(&self, session: SessionId, steps: u32) -> Result<u32, HistoryError> {
        self.follow(session, steps, "back", "parent")
    }

    /// The cell so many steps towards where the session stood before it moved.
    ///
    /// # Errors
    /// When there are fewer, or the file cannot be read.
    pub fn forward(&self, session: SessionId, steps: u32) -> Result<u32, HistoryError> {
        self.follow(session, steps, "forward", "forward")
    }

    fn follow(
        &self,
        session: SessionId,
        steps: u32,
        way: &'static str,
        column: &'static str,
    ) -> Result<u32, HistoryError> {
        let step = "follow the cells";
        let mut at: u32 = self
            .connection
            .query_row(
                "SELECT position FROM session WHERE id = ?1",
                [session.0],
                |row| row.get(0),
            )
            .map_err(failed(step))?;
        let query = format!("SELECT {column} FROM cell WHERE session = ?1 AND number = ?2");
        let mut statement = self
            .connection
            .prepare_cached(&query)
            .map_err(failed(step))?;
        for found in 0..steps {
            let next: Option<Option<u32>> = statement
                .query_row(params![session.0, at], |row| row.get(0))
                .optional()
                .map_err(failed(step))?;
            at = next.flatten().ok_or(HistoryError::TooFar {
                way,
                asked: steps,
                found,
            })?;
        }
        Ok(at)
    }

    /// The session stands at a cell from now on. Nothing is forgotten: [`History::forward`] leads back.
    ///
    /// # Errors
    /// When there is no such cell, or the file cannot be written.
    pub fn go(&mut self, session: SessionId, number: u32) -> Result<(), HistoryError> {
        self.cell(session, number)?;
        self.together("move a session", |transaction| {
            stand_at(transaction, session, number)
        })
    }

    /// The cells from the first one after the root down to this one.
    ///
    /// # Errors
    /// When there is no such cell, or the file cannot be read.
    pub fn way_to(&self, session: SessionId, number: u32) -> Result<Vec<u32>, HistoryError> {
        let mut way = Vec::new();
        let mut at = number;
        while let Some(parent) = self.cell(session, at)?.parent {
            way.push(at);
            at = parent;
        }
        way.reverse();
        Ok(way)
    }
}
