//! A session that begins where another one stood.

use rusqlite::params;

use crate::error::{HistoryError, failed};
use crate::history::{History, insert};
use crate::record::{Checkpoint, NewSession, ROOT, SessionRow};

impl History {
    /// Writes down a session that stands at a cell of another, with the cells on the way there as its past.
    ///
    /// # Errors
    /// When there is no such cell, it has no checkpoint, the name is taken, or the file cannot be written.
    pub fn fork(
        &mut self,
        from: &SessionRow,
        number: u32,
        name: &str,
    ) -> Result<SessionRow, HistoryError> {
        let way = self.way_to(from.id, number)?;
        let root = self.cell(from.id, ROOT)?;
        let base: Checkpoint = root
            .checkpoint
            .ok_or(HistoryError::NoCell { number: ROOT })?;
        let origin = format!("{}@{number}", from.name);
        let step = "write down a fork";
        self.together(step, |transaction| {
            let new = NewSession {
                name,
                engine: &from.engine,
                template: &from.template,
                language: &from.language,
                base,
            };
            let id = insert(transaction, &new, Some(&origin))?;
            let columns = "parent, state, code, began_ms, took_us, status, exit_code, output, \
                output_dropped, answer, snapshot, generation, pages, memory_bytes";
            let query = format!(
                "INSERT INTO cell (session, number, {columns})
                 SELECT ?2, number, {columns} FROM cell WHERE session = ?1 AND number = ?3"
            );
            for cell in &way {
                transaction
                    .execute(&query, params![from.id.0, id.0, cell])
                    .map_err(failed(step))?;
            }
            transaction
                .execute(
                    "UPDATE session SET position = ?2, next = ?2 + 1 WHERE id = ?1",
                    params![id.0, number],
                )
                .map_err(failed(step))?;
            Ok(())
        })?;
        self.session(name)
    }
}
