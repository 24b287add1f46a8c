//! What a session is, and nothing else decides it.
//!
//! In: places, a wish for an engine, built images and cells as plain data. Out: templates, live
//! sessions, events and answers, and one table of what went wrong. Never: a terminal, a file format, an
//! argument parsed, a word printed.

mod limits;

mod kind;
mod name;

mod error;

mod places;

mod notes;

mod kvm;
mod qemu;

mod hygiene;

mod exec;

mod gathered;
mod guest;
mod in_place;
mod interrupt;

mod cell;
mod cell_limits;
mod template;

mod choice;

mod carry;
mod standing;
mod state;
mod stored;

mod command;
mod fresh;
mod pool;
mod prepare;
mod probe;
mod questions;
mod session;

mod apart;
mod book;
mod care;
mod checkpoint;
mod copies;
mod diff;
mod export;
mod lasting;
mod parked;
mod policy;
mod recorder;
mod replay;
mod sweep;

mod figures;
mod hot;
mod measure;
mod strangers;

mod files;
mod hints;
mod siblings;

pub use apart::Spot;
pub use book::{Book, open_history};
pub use care::{Thinned, checkpoint_bytes, collect, session_sizes, thin};
pub use carry::{Verified, export_template, import_template, remove_template, verify_template};
pub use cell::{
    Answer, Bundle, Cell, Column, Completeness, CompletenessStatus, Event, Input, InputRequest,
    Match, Names, Output, Raised, Sink, Status, StoppedBy, TABLE_MIME, Table, Truncated, Variable,
    table_size,
};
pub use cell_limits::{LimitError, Limits, bytes};
pub use choice::{engine_for, find_engine};
pub use command::{Command, command_of, is_aside, program_cell};
pub use copies::{Hazard, Wanted, copies};
pub use diff::{Difference, diff};
pub use error::{Failure, SessionError};
pub use exec::{Exec, ExecEnded, ExecEvent, ExecInputs};
pub use export::{ExportForm, export_session};
pub use figures::{log_text, stats_text};
pub use files::{
    Progress, copy_in, copy_in_archive, copy_in_stream, copy_out, copy_out_stream, get_file,
    guest_stat, make_folder_of, put_file,
};
pub use hints::hint_for;
pub use interrupt::Interrupter;
pub use kind::{EngineChoice, EngineKind};
pub use kvm::{KvmStanding, kvm_standing};
pub use lasting::{Aside, Opened, Opening};
pub use limits::GRACE;
pub use measure::{Layers, Turn};
pub use name::SessionName;
pub use parked::Parked;
pub use places::{Places, RunFolder};
pub use policy::{OnFailure, Policy, SnapshotWhen};
pub use pool::{PoolSize, Way};
pub use prepare::{BuiltImage, PrepareStep, Prepared};
pub use probe::{Wish, can_prepare, prepare};
pub use replay::{Change, Replayed, replay};
pub use session::{Info, Session, Times};
pub use siblings::{Sibling, siblings};
pub use standing::FellBack;
pub use strangers::{Executed, Strangers};
pub use sweep::{Axis, Setting, Sweep, Tried, settings, sweep};
pub use template::{Found, Template, TemplateName, TemplateRecord, template_engines};
pub use vmrepl_copying::{Skipped, Tally as Copied};
pub use vmrepl_history::{
    CellRow, CellState, Checkpoint, History, HistoryError, Outcome, ROOT, SessionRow,
};
pub use vmrepl_machine::{Engine, JailFact, jail_facts};
pub use vmrepl_machine::{Phases, Purpose};
pub use vmrepl_wire::control::RngPolicy;
pub use vmrepl_wire::copying::{Kind, Stat};
pub use vmrepl_wire::exec::{ExecEnd, ExecLimits, ExecStart, ExecUsage, WindowSize};
pub use vmrepl_wire::languages::{
    Execute, Language, Outcome as LanguageOutcome, Status as LanguageStatus,
};
pub use vmrepl_wire::line::to_line;
pub use vmrepl_wire::stats::{LogLevel, LogLine, Stats, Tally};
