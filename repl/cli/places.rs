//! The one place that reads the environment.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};
use vmrepl_line::Inline;
use vmrepl_session::Places;

/// Everything that the environment says.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) places: Places,
    /// The REPL's history of lines.
    pub(crate) history: PathBuf,
    /// Where pictures go that the terminal cannot show.
    pub(crate) pictures: PathBuf,
    /// Whether colours are welcome where they can be shown.
    pub(crate) colours: bool,
    /// How this terminal shows pictures.
    pub(crate) inline: Option<Inline>,
}

/// Reads the environment: `VMREPL_HOME` puts everything into one folder, else the XDG folders are used;
/// `VMREPL_RUN_DIR` is for sockets.
pub(crate) fn environment() -> Result<Environment> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let home = set("HOME").map(PathBuf::from);
    let under = |xdg: &str, fallback: &str| -> Result<PathBuf> {
        if let Some(all) = set("VMREPL_HOME") {
            return Ok(PathBuf::from(all));
        }
        let folder = set(xdg)
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|home| home.join(fallback)));
        Ok(folder
            .context("neither HOME nor VMREPL_HOME is set")?
            .join("vmrepl"))
    };
    let data = under("XDG_DATA_HOME", ".local/share")?;
    let state = under("XDG_STATE_HOME", ".local/state")?;
    let run = set("VMREPL_RUN_DIR")
        .map(PathBuf::from)
        .or_else(|| set("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("vmrepl")))
        .unwrap_or_else(|| data.join("run"));
    Ok(Environment {
        history: state.join("history"),
        pictures: data.join("pictures"),
        colours: set("NO_COLOR").is_none() && set("TERM").is_some_and(|term| term != "dumb"),
        inline: Inline::detect(|name| set(name)?.into_string().ok()),
        places: Places {
            store: data.join("store"),
            images: data.join("images"),
            sessions: data.join("sessions"),
            run,
            search_path: set("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")),
            // This program, also when its file was replaced since it started.
            worker: (
                PathBuf::from("/proc/self/exe"),
                vec![OsString::from(crate::WORKER)],
            ),
        },
    })
}
