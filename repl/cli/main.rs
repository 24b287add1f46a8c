//! The program: arguments in; a face, a command or a run; an exit code out.

mod args;
mod bench;
mod bench_languages;
mod bench_memory;
mod bench_sessions;
mod check;
mod copies;
mod cp;
mod doctor;
mod engines;
mod exec;
mod failure;
mod input;
mod keep;
mod out;
mod places;
mod prepare;
mod repl;
mod run;
mod sessions;
mod signals;
mod stats;
mod templates;
mod trials;

use std::io::IsTerminal;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _};
use vmrepl_session::{Language, SessionError};

use args::{Cli, Command, RunArgs};
use failure::UsageError;
use places::Environment;

/// The argument that makes this program the worker of one machine: its standard input is then the socket to
/// whoever started it.
pub(crate) const WORKER: &str = "__machine";

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == WORKER)
    {
        return match std::io::stdin().as_fd().try_clone_to_owned() {
            Ok(socket) => vmrepl_machine::kvm_worker(socket),
            Err(_) => ExitCode::FAILURE,
        };
    }
    vmrepl_machine::keep_descriptors();
    let matches = Cli::command().get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    // Its programs run anywhere; its sessions have a template of their own.
    let is_chosen = matches.value_source("template") != Some(ValueSource::DefaultValue);
    if cli.run.language == Language::Bash && !is_one_shot(&cli.run) && !is_chosen {
        "bash".clone_into(&mut cli.run.template);
    }
    match places::environment().and_then(|environment| dispatch(&cli, &environment)) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

fn dispatch(cli: &Cli, environment: &Environment) -> Result<ExitCode> {
    match &cli.command {
        None => run_or_repl(&cli.run, environment),
        Some(Command::Prepare(args)) => prepare::prepare(args, environment),
        Some(Command::Verify { template }) => templates::verify(template.as_deref(), environment),
        Some(Command::Templates { action, json }) => {
            templates::templates(action.as_ref(), *json, environment)
        }
        Some(Command::Undo { name, steps }) => sessions::undo(name, *steps, environment),
        Some(Command::Redo { name, steps }) => sessions::redo(name, *steps, environment),
        Some(Command::Goto { name, cell }) => sessions::go_to(name, *cell, environment),
        Some(Command::Fork {
            name,
            new,
            at,
            count,
        }) => sessions::fork(name, new, *at, *count, environment),
        Some(Command::Exec(args)) => exec::exec(args, environment),
        Some(Command::Shell { target, user }) => exec::shell(target, user.as_deref(), environment),
        Some(Command::Cp(args)) => cp::cp(args, environment),
        Some(Command::Stats(args)) => stats::stats(args, environment),
        Some(Command::Diff(args)) => trials::diff(args, environment),
        Some(Command::Replay(args)) => trials::replay(args, environment),
        Some(Command::Sweep(args)) => trials::sweep(args, environment),
        Some(Command::Branches { name, json }) => sessions::branches(name, *json, environment),
        Some(Command::Log(args)) => sessions::log(args, environment),
        Some(Command::Show { cell, json }) => sessions::show(cell, *json, environment),
        Some(Command::Export { name, file }) => {
            sessions::export(name, file.as_deref(), environment)
        }
        Some(Command::Sessions { action, json }) => {
            sessions::sessions(action.as_ref(), *json, environment)
        }
        Some(Command::Gc { budget, dry_run }) => sessions::gc(*budget, *dry_run, environment),
        Some(Command::Doctor {
            copies: true,
            template,
            engine,
            rng,
            json,
        }) => copies::copies(template, *engine, *rng, *json, environment),
        Some(Command::Doctor { json, .. }) => doctor::doctor(*json, environment),
        Some(Command::Bench(args)) => bench::bench(args, environment),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "vmrepl", &mut script);
            out::raw(&script)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Whether a session's cells can be written in it.
fn has_sessions(language: Language) -> bool {
    matches!(
        language,
        Language::Python | Language::JavaScript | Language::Bash
    )
}

/// Whether there is code to run, and nobody to type it.
fn is_one_shot(args: &RunArgs) -> bool {
    args.code.is_some() || !args.script.is_empty() || !std::io::stdin().is_terminal()
}

fn run_or_repl(args: &RunArgs, environment: &Environment) -> Result<ExitCode> {
    let first = || {
        if is_one_shot(args) {
            run::run(args, environment)
        } else if !has_sessions(args.language) {
            let message = format!(
                "-l {} needs a program: -c CODE, FILE or - for stdin; in the REPL, cells that begin with %%{0}; \
                 sessions are python, javascript or bash",
                args.language
            );
            Err(UsageError { message }.into())
        } else {
            repl::repl(args, environment)
        }
    };
    let error = match first() {
        Ok(code) => return Ok(code),
        Err(error) => error,
    };
    // A first run: the template is not there, but a person is.
    let missing = matches!(
        error.downcast_ref(),
        Some(SessionError::NoTemplate { .. } | SessionError::OnlyKvm { .. })
    );
    if missing && out::is_interactive() && !args.json && templates::is_recipe(&args.template) {
        out::note(&format!("{error}; making it takes a few minutes, once."));
        if out::ask("prepare it now?") {
            let code = prepare::prepare_default(&args.template, args.engine, environment)?;
            if code != ExitCode::SUCCESS {
                return Ok(code);
            }
            return first();
        }
    }
    Err(error)
}
