//! What the face itself can do: one row a command.

use std::fs;
use std::io::Write as _;

use vmrepl_session::{Session, SessionError, SessionName, Variable, stats_text};

use crate::face::{Face, LineError, Next};
use crate::screen::Screen;
use crate::transfer;
use crate::travel;

/// One command.
pub(crate) struct Command {
    /// Its name, then shorter ones.
    names: &'static [&'static str],
    /// What it takes.
    takes: &'static str,
    help: &'static str,
    run: fn(&mut Face, &mut Screen<'_>, &str) -> Result<Next, LineError>,
}

const COMMANDS: &[Command] = &[
    Command {
        names: &[":help", ":h", ":?"],
        takes: "",
        help: "this",
        run: |_, screen, _| {
            screen.say(&help());
            Ok(Next::Prompt)
        },
    },
    Command {
        names: &[":names", ":vars", ":who"],
        takes: "",
        help: "your names, with type, size and value",
        run: |face, screen, _| face.ask(screen, |session, screen| names_of(session, screen, false)),
    },
    Command {
        names: &[":tables"],
        takes: "",
        help: "those of your names that are tables",
        run: |face, screen, _| face.ask(screen, |session, screen| names_of(session, screen, true)),
    },
    Command {
        names: &[":stats"],
        takes: "",
        help: "the machine's memory, and what was asked of it",
        run: |face, screen, _| {
            face.ask(screen, |session, screen| {
                screen.say(&stats_text(&session.stats()?));
                Ok(())
            })
        },
    },
    Command {
        names: &[":time"],
        takes: "CODE",
        help: "run CODE and tell how long it took",
        run: |_, screen, code| {
            if code.is_empty() {
                screen.say("say what to time, such as :time sum(range(10**6))");
                return Ok(Next::Prompt);
            }
            Ok(Next::Cell {
                code: code.to_owned(),
                timed: true,
            })
        },
    },
    Command {
        names: &[":timing"],
        takes: "[on|off]",
        help: "tell it after each cell",
        run: |face, screen, word| {
            face.timing = match word {
                "on" => true,
                "off" => false,
                _ => !face.timing,
            };
            screen.say(if face.timing {
                "timing is on"
            } else {
                "timing is off"
            });
            Ok(Next::Prompt)
        },
    },
    Command {
        names: &[":limit", ":limits"],
        takes: "[NAME=VALUE]",
        help: "limits of a cell: time, cpu, memory, output, processes",
        run: |face, screen, words| {
            face.ask(screen, |session, screen| {
                let mut limits = session.limits();
                for wish in words.split_whitespace() {
                    if let Err(error) = limits.set(wish) {
                        screen.trouble(&error.to_string());
                        return Ok(());
                    }
                }
                session.set_limits(limits);
                screen.say(&limits.to_string());
                Ok(())
            })
        },
    },
    Command {
        names: &[":undo"],
        takes: "[N]",
        help: "go back by a cell, or N (in a session with a name)",
        run: |face, screen, word| travel::step(face, screen, word, Session::undo),
    },
    Command {
        names: &[":redo"],
        takes: "[N]",
        help: "take an undo back",
        run: |face, screen, word| travel::step(face, screen, word, Session::redo),
    },
    Command {
        names: &[":goto"],
        takes: "CELL",
        help: "go to a cell; 0 is the beginning",
        run: |face, screen, word| match word.parse() {
            Ok(number) => face.go(screen, |session| session.go_to(number)),
            Err(_) => told(screen, "say which cell, such as :goto 3"),
        },
    },
    Command {
        names: &[":fork"],
        takes: "NAME",
        help: "a session of another name that begins here",
        run: |face, screen, word| {
            face.ask(screen, |session, screen| {
                session.fork(&SessionName::new(word)?)?;
                screen.say(&format!("open it with: vmrepl -s {word}"));
                Ok(())
            })
        },
    },
    Command {
        names: &[":branches"],
        takes: "",
        help: "the cells that nothing was run after",
        run: |face, screen, _| face.ask(screen, travel::branches),
    },
    Command {
        names: &[":switch"],
        takes: "CELL",
        help: "go to the end of another branch",
        run: travel::switch,
    },
    Command {
        names: &[":diff"],
        takes: "[CELL [CELL]]",
        help: "names that differ from the cell before, or from CELL",
        run: |face, screen, words| {
            face.ask(screen, |session, screen| {
                travel::diff(session, screen, words)
            })
        },
    },
    Command {
        names: &[":keep"],
        takes: "[on|failures|off]",
        help: "which cells leave a checkpoint",
        run: |face, screen, word| {
            face.ask(screen, |session, screen| {
                travel::keep(session, screen, word)
            })
        },
    },
    Command {
        names: &[":history", ":log"],
        takes: "[N]",
        help: "the cells that led here, or the last N",
        run: history,
    },
    Command {
        names: &[":put"],
        takes: "FILE [THERE]",
        help: "copy a file or folder of yours into the guest",
        run: |face, screen, words| {
            face.ask(screen, |session, screen| {
                transfer::put(session, screen, words)
            })
        },
    },
    Command {
        names: &[":get"],
        takes: "THERE [FILE]",
        help: "copy a file or folder out of the guest",
        run: |face, screen, words| {
            face.ask(screen, |session, screen| {
                transfer::get(session, screen, words)
            })
        },
    },
    Command {
        names: &[":save"],
        takes: "FILE",
        help: "write the cells that ran well to FILE, as a script",
        run: save,
    },
    Command {
        names: &[":info"],
        takes: "",
        help: "this session: template, engine, memory, socket",
        run: |face, screen, _| {
            face.ask(screen, |session, screen| {
                let info = session.info();
                screen.say(&format!(
                "template {}, engine {}, {} MB, Linux {}, process {}\nsocket   {} (CONNECT <port>)",
                info.template,
                info.engine,
                info.memory_bytes >> 20,
                info.linux,
                info.process_id,
                info.socket.display()
            ));
                let stats = session.stats()?;
                screen.say(&format!(
                    "guest    {} of {} MB free, Python uses {} MB",
                    stats.mem_available_bytes >> 20,
                    stats.mem_total_bytes >> 20,
                    stats.runner_rss_bytes >> 20,
                ));
                Ok(())
            })
        },
    },
    Command {
        names: &[":interrupt"],
        takes: "",
        help: "how to stop a cell: Ctrl-C; the session keeps its names",
        run: |_, screen, _| {
            screen.say(
                "no cell is running; Ctrl-C stops one that does, and the session keeps its names",
            );
            Ok(Next::Prompt)
        },
    },
    Command {
        names: &[":restart", ":reset"],
        takes: "",
        help: "a fresh restore of the template; your names are gone",
        run: |face, screen, _| face.restart(screen).map(|()| Next::Prompt),
    },
    Command {
        names: &[":quit", ":q", ":exit"],
        takes: "",
        help: "leave; Ctrl-D does, too",
        run: |_, _, _| Ok(Next::Leave),
    },
];

/// All names of all commands.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().flat_map(|command| command.names).copied()
}

/// Runs the command in `line`, which starts with a colon.
pub(crate) fn run(face: &mut Face, screen: &mut Screen<'_>, line: &str) -> Result<Next, LineError> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let found = COMMANDS
        .iter()
        .find(|command| command.names.contains(&name));
    if let Some(command) = found {
        return (command.run)(face, screen, rest.trim());
    }
    let nearest = names()
        .min_by_key(|known| strsim::damerau_levenshtein(known, name))
        .filter(|known| strsim::damerau_levenshtein(known, name) <= 2);
    screen.trouble(&match nearest {
        Some(known) => format!("there is no {name}; is it {known}?"),
        None => format!("there is no {name}; :help lists what there is"),
    });
    Ok(Next::Prompt)
}

fn help() -> String {
    let mut text = String::new();
    let mut row = |what: &str, help: &str| text.push_str(&format!("  {what:<22}{help}\n"));
    row("NAME? or NAME??", "what NAME is; with its source");
    row("!COMMAND", "run COMMAND in the guest's shell");
    for command in COMMANDS {
        row(
            &format!("{} {}", command.names[0], command.takes),
            command.help,
        );
    }
    text.push_str(
        "  Tab completes; Ctrl-R searches what was typed before; Alt-Enter opens a line;\n  \
         an empty line ends a block; _ is the last value, Out[n] that of cell n\n",
    );
    text
}

fn names_of(
    session: &mut Session,
    screen: &mut Screen<'_>,
    tables: bool,
) -> Result<(), SessionError> {
    let mut variables = session.variables()?;
    if tables {
        variables.retain(|variable| variable.row_count.is_some());
    }
    if variables.is_empty() {
        screen.say(if tables {
            "no tables yet"
        } else {
            "no names yet"
        });
    }
    let widest = variables.iter().map(|v| v.name.chars().count()).max();
    let width = widest.unwrap_or(0).min(30);
    for variable in &variables {
        screen.say(&format!(
            "{:<width$}  {:<12}  {}",
            variable.name,
            variable.type_name,
            facts(variable, tables)
        ));
    }
    Ok(())
}

/// One line about a value.
pub(crate) fn facts(variable: &Variable, table: bool) -> String {
    let shape = variable.shape.as_ref().map(|shape| {
        let sides: Vec<String> = shape.iter().map(ToString::to_string).collect();
        sides.join(" x ")
    });
    let size = variable.size_bytes.map(bytes);
    let parts = [shape, size];
    let known: Vec<String> = parts.into_iter().flatten().collect();
    if table || (!known.is_empty() && variable.repr.contains('\n')) {
        return match (known.is_empty(), variable.row_count) {
            (true, Some(rows)) => format!("{rows} rows"),
            _ => known.join(", "),
        };
    }
    let line = variable.repr.lines().next().unwrap_or("");
    line.chars().take(60).collect()
}

fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} bytes"),
        10_000..10_000_000 => format!("{} kB", count / 1000),
        _ => format!("{} MB", count / 1_000_000),
    }
}

/// How many steps a word says; one without a word.
pub(crate) fn steps(word: &str) -> Result<u32, String> {
    match word {
        "" => Ok(1),
        _ => word
            .parse()
            .map_err(|_| format!("{word:?} is no number of cells")),
    }
}

fn told(screen: &mut Screen<'_>, trouble: &str) -> Result<Next, LineError> {
    screen.trouble(trouble);
    Ok(Next::Prompt)
}

fn history(face: &mut Face, screen: &mut Screen<'_>, word: &str) -> Result<Next, LineError> {
    let count = match word.parse::<usize>() {
        Ok(count) => count,
        Err(_) if word.is_empty() => usize::MAX,
        Err(_) => {
            screen.trouble(&format!("{word:?} is no number of cells"));
            return Ok(Next::Prompt);
        }
    };
    let mut is_told = false;
    face.ask(screen, |session, screen| {
        is_told = travel::way(session, screen, count)?;
        Ok(())
    })?;
    if is_told {
        return Ok(Next::Prompt);
    }
    let from = face.ran.len().saturating_sub(count);
    for ran in &face.ran[from..] {
        let mark = if ran.well { ' ' } else { '!' };
        let code = ran.code.trim_end().replace('\n', "\n        ");
        screen.say(&format!("{mark}[{:>3}]  {code}", ran.number));
    }
    if face.ran.is_empty() {
        screen.say("no cell has run yet");
    }
    Ok(Next::Prompt)
}

fn save(face: &mut Face, screen: &mut Screen<'_>, path: &str) -> Result<Next, LineError> {
    if path.is_empty() {
        screen.say("say where to, such as :save work.py");
        return Ok(Next::Prompt);
    }
    let cells: Vec<&str> = face
        .ran
        .iter()
        .filter(|ran| ran.well)
        .map(|ran| ran.code.trim_end())
        .collect();
    let text = cells.join("\n\n") + "\n";
    // Never over what is there.
    let written = fs::File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => screen.say(&format!("{} cells are in {path}", cells.len())),
        Err(error) => screen.trouble(&format!("could not write {path}: {error}")),
    }
    Ok(Next::Prompt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_taken_twice() {
        let mut all: Vec<_> = names().collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn help_names_every_command() {
        let text = help();
        for command in COMMANDS {
            assert!(text.contains(command.names[0]) && text.contains(command.help));
        }
        assert!(text.lines().all(|line| line.len() < 80), "{text}");
    }
}
