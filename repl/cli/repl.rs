//! The interactive face is opened here, with what the environment and the arguments say.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::Result;
use vmrepl_line::Settings;
use vmrepl_session::{Language, Limits, PoolSize, Purpose, Session, TemplateName, engine_for};

use crate::args::RunArgs;
use crate::input::{Hidden, Lines};
use crate::out;
use crate::places::Environment;
use crate::run::limits;
use crate::sessions;
use crate::signals::{Manner, Signals, Target};

/// A session that ends with this process.
fn nameless(
    args: &RunArgs,
    language: Option<Language>,
    environment: &Environment,
) -> Result<Session> {
    let name = TemplateName::new(&args.template)?;
    let engine = engine_for(&environment.places, args.engine.into(), &name)?;
    let mut session = Session::restore(&environment.places, &engine, &name, Purpose::Freeze)?;
    if let Some(language) = language {
        session.expect_language(language)?;
    }
    // For `:restart`, and for whoever loses a machine.
    session.keep_ready(PoolSize { bound: 1, spare: 0 });
    Ok(session)
}

/// Opens the REPL.
pub(crate) fn repl(args: &RunArgs, environment: &Environment) -> Result<ExitCode> {
    let signals = Signals::install()?;
    limits(args, Limits::default())?;
    let language = Some(args.language).filter(|language| *language != Language::Python);
    let mut session = match &args.session {
        Some(name) => sessions::open(args, name, language, environment)?.0,
        None => nameless(args, language, environment)?,
    };
    session.set_limits(limits(args, session.limits())?);
    let (aimed, rearmed, read) = (signals.clone(), signals.clone(), signals.clone());
    let lines = RefCell::new(Lines::default());
    let settings = Settings {
        history: environment.history.clone(),
        pictures: environment.pictures.clone(),
        colours: environment.colours && io::stdout().is_terminal(),
        inline: environment.inline.filter(|_| io::stdout().is_terminal()),
        aim: Box::new(move |session| {
            aimed.aim(&Target {
                interrupter: session.interrupter(),
                manner: Manner::Patient,
                grace: vmrepl_session::GRACE,
                is_kept: session.name().is_some(),
                run_folder: session.run_folder().path().to_owned(),
            });
        }),
        rearm: Box::new(move || rearmed.rearm()),
        input: Box::new(move |request, prompt| {
            let _hidden = Hidden::when(request.password);
            prompt();
            lines.borrow_mut().next(&read)
        }),
        idle: args.idle.filter(|idle| !idle.is_zero()),
        ask: Box::new(out::ask),
    };
    vmrepl_line::run(session, &settings, &mut io::stdout())?;
    Ok(ExitCode::SUCCESS)
}
