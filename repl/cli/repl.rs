//! The interactive face is opened here, with what the environment and the arguments say.

use std::process::ExitCode;

use anyhow::Result;

use crate::args::RunArgs;
use crate::places::Environment;

/// Opens the REPL.
pub(crate) fn repl(_args: &RunArgs, _environment: &Environment) -> Result<ExitCode> {
    Err(anyhow::anyhow!(
        "the interactive face is not there yet; use -c, a script or stdin"
    ))
}
