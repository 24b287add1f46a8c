//! What may be said of things that are done beside the interpreter.

use clap::Args;

use super::{EngineArg, seconds};

/// Whose machine.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// The session, or the template when there is no such session
    #[arg(value_name = "SESSION|TEMPLATE")]
    pub(crate) name: String,
    /// What runs the machine
    #[arg(long, value_enum, default_value_t = EngineArg::Auto, env = "VMREPL_ENGINE")]
    pub(crate) engine: EngineArg,
    /// Wait so many seconds for another process that has the session
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) wait: Option<std::time::Duration>,
}

/// What to run beside the interpreter.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: the program's own, 124 timeout, 126 it cannot be run, 127 there is no such program, \
                  128+N killed by signal N; 125 our own failure. In a session it leaves a checkpoint, as a cell does."
)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// On a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set a variable; NAME alone takes the value from here
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Start in this folder instead of the user's home
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// As this user (name or number) instead of the one that cells run as
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Kill it after so many seconds (exit code 124)
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) timeout: Option<std::time::Duration>,
    /// Kill it when it takes more: cpu (seconds), memory (bytes, or with K, M, G) or processes. Said once for each
    #[arg(long = "limit", value_name = "NAME=VALUE")]
    pub(crate) limits: Vec<String>,
    /// The program and its arguments
    #[arg(
        required = true,
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) command: Vec<String>,
}

/// What to copy.
#[derive(Debug, Args)]
#[command(
    after_help = "Modes, times, links and holes are kept. A target that is a folder takes the copy under its source's name; what was \
                  not there appears when it is whole. A copy into a session leaves a checkpoint, as a cell does; one into a \
                  template is lost with its fresh restore, so only its way out is of use."
)]
pub(crate) struct CpArgs {
    /// A path here, SESSION:PATH, or - for standard input
    pub(crate) source: String,
    /// SESSION:PATH, a path here, or - for standard output (a folder goes there as a tar stream)
    pub(crate) target: String,
    /// What runs the machine
    #[arg(long, value_enum, default_value_t = EngineArg::Auto, env = "VMREPL_ENGINE")]
    pub(crate) engine: EngineArg,
    /// Wait so many seconds for another process that has the session
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) wait: Option<std::time::Duration>,
    /// No progress, no summary
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What to tell of a guest.
#[derive(Debug, Args)]
#[command(
    after_help = "What was asked for is counted since the guest booted, which a template's did when it was prepared."
)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// The last lines of the guest agent's log instead
    #[arg(long)]
    pub(crate) log: bool,
    /// From now on the agent's log keeps lines of this level, and those that weigh more. In a session that stays
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(crate) level: Option<LevelArg>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How much a line of the log weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LevelArg {
    /// What failed
    Error,
    /// What an operator needs to know
    Warn,
    /// What helps when looking for a fault
    Info,
    /// Each request
    Debug,
}

impl From<LevelArg> for vmrepl_session::LogLevel {
    fn from(arg: LevelArg) -> Self {
        match arg {
            LevelArg::Error => Self::Error,
            LevelArg::Warn => Self::Warn,
            LevelArg::Info => Self::Info,
            LevelArg::Debug => Self::Debug,
        }
    }
}
