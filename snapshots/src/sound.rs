//! The pages of a chain for who runs a machine on them: compared with their checksums first.

use crate::chain::Chain;
use crate::error::StoreError;
use crate::pages::Pages;
use crate::verify::check_bulk;

impl Chain {
    /// As [`Chain::pages`], after each layer's stored pages were compared with their checksums. All of them are read for
    /// a restore anyway; the base's memory is not, and is not hashed.
    ///
    /// # Errors
    /// As for [`Chain::pages`], and when a byte is not as it was written.
    pub fn sound_pages(&self) -> Result<Pages, StoreError> {
        let above_base = &self.snapshots()[..self.snapshots().len() - 1];
        for layer in above_base {
            check_bulk(layer)?;
        }
        self.pages()
    }
}
