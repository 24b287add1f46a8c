//! Messages of port 10000: one JSON object a line.
//!
//! A request in the plain form (`code`, `show_tables`, `show_table_meta` and nothing else) gets an
//! answer with the six plain fields and nothing else. Any further field in the request makes the
//! answer an extended one.

mod answer;
mod event;
mod reply;
mod request;
mod table;

pub use answer::{Answer, Bundle, Names, Status, StoppedBy, Truncated};
pub use event::{Event, InputRequest, Output, Raised, ResultEvent, TableEvent};
pub use event::{OutputStream, text_boundary, write_output};
pub use reply::{Acted, Completeness, CompletenessStatus, Completions, Inspection, Match, Pong};
pub use reply::{Variable, Variables};
pub use request::{CellLimits, Op, Request};
pub use table::{Column, TABLE_MIME, Table};
