//! `stats`: what the guest tells of itself.

use std::process::ExitCode;

use anyhow::Result;
use vmrepl_session::{log_text, stats_text, to_line};

use crate::args::StatsArgs;
use crate::exec::open;
use crate::out;
use crate::places::Environment;

pub(crate) fn stats(args: &StatsArgs, environment: &Environment) -> Result<ExitCode> {
    let mut session = open(&args.target, environment)?;
    if let Some(level) = args.level {
        let aside = session.begin_aside(&format!(":stats --level {level:?}").to_lowercase())?;
        session.set_log_level(level.into())?;
        session.end_aside(&aside, 0, String::new())?;
    }
    let text = match (args.log, args.json) {
        (false, false) => stats_text(&session.stats()?),
        (false, true) => String::from_utf8_lossy(&to_line(&session.stats()?)).into_owned(),
        (true, false) => {
            let lines = session.logs()?;
            lines.iter().map(|line| log_text(line) + "\n").collect()
        }
        (true, true) => {
            let lines = session.logs()?;
            let lines = lines
                .iter()
                .map(|line| String::from_utf8_lossy(&to_line(line)).into_owned());
            lines.collect()
        }
    };
    out::raw(text.as_bytes())?;
    session.leave()?;
    Ok(ExitCode::SUCCESS)
}
