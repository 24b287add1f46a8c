//! A table as it is shown: its shape and its first rows.

use serde::{Deserialize, Serialize};

/// The MIME type under which a table stands in a [`Bundle`](super::Bundle).
pub const TABLE_MIME: &str = "application/vnd.vmrepl.table+json";

/// One table that a cell bound to a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The name it is bound to; `_` for a cell's value.
    pub name: String,
    /// Rows in all, where the backend knows.
    pub row_count: Option<u64>,
    /// Whether it changes by itself.
    pub is_refreshing: bool,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// The first ten rows as text.
    pub preview: String,
}

/// One column of a [`Table`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as the backend names it.
    #[serde(rename = "type")]
    pub type_name: String,
}
