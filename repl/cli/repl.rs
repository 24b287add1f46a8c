//! The interactive face is opened here, with what the environment and the arguments say.

use std::process::ExitCode;

use anyhow::Result;
use vmrepl_line::Settings;
use vmrepl_session::{Session, TemplateName, find_engine};

use crate::args::RunArgs;
use crate::places::Environment;
use crate::signals::Signals;

/// Opens the REPL.
pub(crate) fn repl(args: &RunArgs, environment: &Environment) -> Result<ExitCode> {
    let name = TemplateName::new(&args.template)?;
    let engine = find_engine(&environment.places, args.engine.into())?;
    let session = Session::restore(&environment.places, &engine, &name)?;
    let signals = Signals::install()?;
    let (aimed, rearmed) = (signals.clone(), signals);
    let settings = Settings {
        history: environment.history.clone(),
        aim: Box::new(move |interrupter| aimed.aim(interrupter)),
        rearm: Box::new(move || rearmed.rearm()),
    };
    vmrepl_line::run(session, &settings, &mut std::io::stdout())?;
    Ok(ExitCode::SUCCESS)
}
