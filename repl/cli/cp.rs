//! `cp`: files and folders between this host and a machine.

use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vmrepl_session::{
    Copied, Progress, Session, SessionError, copy_in, copy_in_stream, copy_out, copy_out_stream,
};

use crate::args::{CpArgs, TargetArgs};
use crate::exec;
use crate::failure::{MissingError, UsageError};
use crate::out;
use crate::places::Environment;
use crate::signals::{Manner, Signals, Target};

/// A copy that takes no longer shows no progress.
const UNSEEN: Duration = Duration::from_millis(500);
/// Entries that were left out and are named.
const NAMED: usize = 10;

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End<'a> {
    /// Standard input or output.
    Stream,
    Here(&'a str),
    /// In the machine of this session or template.
    There {
        name: &'a str,
        path: &'a str,
    },
}

impl<'a> End<'a> {
    /// A colon names a machine unless a slash comes before it: `./a:b` is a file.
    fn of(word: &'a str) -> Self {
        match word.split_once(':') {
            _ if word == "-" => Self::Stream,
            Some((name, path)) if !name.is_empty() && !name.contains('/') => {
                Self::There { name, path }
            }
            _ => Self::Here(word),
        }
    }
}

/// Copies in or out.
pub(crate) fn cp(args: &CpArgs, environment: &Environment) -> Result<ExitCode> {
    let (source, target) = (End::of(&args.source), End::of(&args.target));
    let name = match (&source, &target) {
        (End::There { name, .. }, End::Here(_) | End::Stream)
        | (End::Here(_) | End::Stream, End::There { name, .. }) => *name,
        _ => {
            let message = "one of the two must be in a machine, said as SESSION:PATH, and the other here; \
                           a path here with a colon in it is said with its folder, as ./a:b";
            return Err(UsageError {
                message: message.to_owned(),
            }
            .into());
        }
    };
    if let End::Here(path) = &source {
        std::fs::metadata(path).map_err(|source| MissingError {
            message: format!("could not read {path}"),
            source,
        })?;
    }
    let signals = Signals::install()?;
    let mut session = exec::open(
        &TargetArgs {
            name: name.to_owned(),
            engine: args.engine,
            wait: args.wait,
        },
        environment,
    )?;
    signals.aim(&Target {
        interrupter: session.interrupter(),
        manner: Manner::Hasty,
        grace: vmrepl_session::GRACE,
        is_kept: session.name().is_some(),
        run_folder: session.run_folder().path().to_owned(),
    });
    let mut shown = Shown::new(args.quiet);
    let mut watch = |progress: Progress<'_>| shown.tell(&progress);
    let copied = match (&source, &target) {
        (End::There { path, .. }, End::Here(here)) => {
            copy_out(&session, path, Path::new(here), &mut watch)
        }
        (End::There { path, .. }, _) => {
            let mut stdout = io::stdout().lock();
            copy_out_stream(&session, path, &mut stdout, &mut watch).inspect(|_| {
                // What cannot be written any more, nobody reads.
                drop(stdout.flush());
            })
        }
        (here, End::There { path, .. }) => {
            let words = format!(":put {} {path}", args.source);
            put(&mut session, here, path, &words, &mut watch)
        }
        _ => return Ok(ExitCode::FAILURE),
    };
    shown.end();
    if let Some(code) = signals.ended_by() {
        return Ok(ExitCode::from(code));
    }
    if signals.were_seen() && copied.is_err() {
        return Ok(ExitCode::from(130));
    }
    session.leave()?;
    let copied = copied?;
    tell_skipped(&copied);
    Ok(ExitCode::from(u8::from(copied.skipped_count > 0)))
}

fn tell_skipped(copied: &Copied) {
    for skipped in copied.skipped.iter().take(NAMED) {
        out::note(&format!(
            "vmrepl: left out {}: {}",
            skipped.path, skipped.why
        ));
    }
    let more = copied.skipped_count.saturating_sub(NAMED as u64);
    if more > 0 {
        out::note(&format!("vmrepl: and {more} more"));
    }
}

/// Copies in; in a session with a name it is written down and can be undone.
fn put(
    session: &mut Session,
    source: &End<'_>,
    target: &str,
    words: &str,
    watch: &mut dyn FnMut(Progress<'_>),
) -> Result<Copied, SessionError> {
    let aside = session.begin_aside(words)?;
    let copied = match source {
        End::Here(here) => copy_in(session, Path::new(here), target, watch),
        _ => copy_in_stream(session, &mut io::stdin().lock(), target, watch),
    };
    let (code, said) = match &copied {
        Ok(copied) => (
            0,
            format!("{} files, {} bytes\n", copied.files, copied.bytes),
        ),
        Err(error) => (1, format!("{error}\n")),
    };
    session.end_aside(&aside, code, said)?;
    copied
}

/// A bar on a terminal, for what takes long.
struct Shown {
    began: Instant,
    is_wanted: bool,
    bar: Option<ProgressBar>,
}

impl Shown {
    fn new(is_quiet: bool) -> Self {
        Self {
            began: Instant::now(),
            is_wanted: !is_quiet && io::stderr().is_terminal(),
            bar: None,
        }
    }

    fn tell(&mut self, progress: &Progress<'_>) {
        if !self.is_wanted || self.began.elapsed() < UNSEEN {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar =
                ProgressBar::with_draw_target(progress.total_bytes, ProgressDrawTarget::stderr());
            let form = match progress.total_bytes {
                Some(_) => "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}",
                None => "{bytes} {bytes_per_sec} {msg}",
            };
            // The form is ours, and right.
            bar.set_style(
                ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        bar.set_position(progress.done_bytes);
        // A guest chooses its names, and may have them steer a terminal.
        let name: String = progress.entry.display().to_string();
        bar.set_message(
            name.chars()
                .filter(|letter| !letter.is_control())
                .take(40)
                .collect::<String>(),
        );
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_names_a_machine() {
        assert_eq!(End::of("-"), End::Stream);
        assert_eq!(
            End::of("t:/a:b"),
            End::There {
                name: "t",
                path: "/a:b"
            }
        );
        assert_eq!(
            End::of("t:"),
            End::There {
                name: "t",
                path: ""
            }
        );
        assert_eq!(End::of("./a:b"), End::Here("./a:b"));
        assert_eq!(End::of("/a"), End::Here("/a"));
    }
}
