//! The host's parser, behind its limits.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ruff_python_ast::{ModModule, PythonVersion};
use ruff_python_parser::{Mode, ParseOptions, Parsed, parse_unchecked};

use crate::limits;
use crate::scan::{Scan, scan};

/// The oldest Python that a guest may have. Syntax that it does not know is for the guest to judge.
const OLDEST_GUEST: PythonVersion = PythonVersion::PY311;

/// A text, its tokens and its tree.
pub(crate) struct Reading {
    pub(crate) scan: Scan,
    pub(crate) parsed: Parsed<ModModule>,
}

/// Reads a text, whether it is right or wrong; `None` when it is too large or too deep.
pub(crate) fn read(source: &str) -> Option<Reading> {
    let scan = scan(source);
    if !limits::fit(source, &scan) {
        return None;
    }
    let options = ParseOptions::from(Mode::Module).with_target_version(OLDEST_GUEST);
    // A fault of the parser must not take the session down: the guest can do without this answer.
    let parsed = catch_unwind(AssertUnwindSafe(|| parse_unchecked(source, options))).ok()?;
    Some(Reading {
        scan,
        parsed: parsed.try_into_module()?,
    })
}
