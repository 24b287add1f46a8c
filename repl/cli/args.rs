//! The command line: what may be said, and its help.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use vmrepl_session::Language;

mod beside;

pub(crate) use beside::{CpArgs, ExecArgs, StatsArgs, TargetArgs};

/// Runs Python in a microVM that was booted, warmed and frozen before, and is restored in milliseconds.
#[derive(Debug, Parser)]
#[command(
    name = "vmrepl",
    version,
    args_conflicts_with_subcommands = true,
    override_usage = "vmrepl [OPTIONS]                    open the REPL\n       \
                      vmrepl [OPTIONS] -c CODE [ARGS]...  run CODE\n       \
                      vmrepl [OPTIONS] FILE [ARGS]...     run a script\n       \
                      vmrepl [OPTIONS] -                  run what stdin says\n       \
                      vmrepl <COMMAND>",
    after_help = "Exit codes: the code's own (0; 1 raised; sys.exit(n) gives n), 2 usage, 3 not found, \
                  124 timeout, 125 our own failure, 130 interrupted."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// The template that has the toolchain, or the language's own.
const POLYGLOT: [(&str, &str, Option<&str>); 6] = [
    ("language", "typescript", Some("polyglot")),
    ("language", "javascript", Some("javascript")),
    ("language", "csharp", Some("polyglot")),
    ("language", "cpp", Some("polyglot")),
    ("language", "rust", Some("polyglot")),
    ("language", "go", Some("polyglot")),
];

/// How to run code.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Run this code and leave
    #[arg(short = 'c', value_name = "CODE", allow_hyphen_values = true)]
    pub(crate) code: Option<String>,
    /// The language of the code: python, typescript, javascript, csharp, cpp, rust, go or bash. All but Python is compiled, if
    /// need be, and run as a program; what follows are its arguments. Without code: a session in python, javascript or bash
    #[arg(short = 'l', long, value_name = "LANG", default_value = "python", value_parser = language, hide_default_value = true)]
    pub(crate) language: Language,
    /// Work in a session of this name, which lasts: each cell leaves a checkpoint
    #[arg(short = 's', long, value_name = "NAME")]
    pub(crate) session: Option<String>,
    /// With a session: begin at this cell, on a branch of its own
    #[arg(long, value_name = "CELL", requires = "session")]
    pub(crate) at: Option<u32>,
    /// With a session: wait so many seconds for another process that has it
    #[arg(long, value_name = "S", requires = "session", value_parser = seconds)]
    pub(crate) wait: Option<std::time::Duration>,
    /// With a session at a terminal: give its machine back after so many seconds without a key, and wake it at the next;
    /// 0 for never
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "900", env = "VMREPL_IDLE")]
    pub(crate) idle: Option<std::time::Duration>,
    /// With a session: which cells leave a checkpoint at once
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        requires = "session",
        default_value_t
    )]
    pub(crate) snapshot: SnapshotArg,
    /// With a session: go on after a cell that failed, or go back to before it and keep it as a branch
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        requires = "session",
        default_value_t
    )]
    pub(crate) on_failure: OnFailureArg,
    /// With a session: generators of random numbers that you have seeded go on where they were, or are seeded anew
    /// with each restore, as all others are
    #[arg(
        long,
        value_enum,
        value_name = "POLICY",
        requires = "session",
        default_value_t
    )]
    pub(crate) rng: RngArg,
    /// The template to restore (default: python; javascript with -l javascript; polyglot with -l and a language to compile)
    #[arg(
        long,
        default_value = "python",
        default_value_ifs = POLYGLOT,
        hide_default_value = true,
        value_name = "NAME",
        env = "VMREPL_TEMPLATE"
    )]
    pub(crate) template: String,
    /// What runs the machine
    #[arg(long, value_enum, default_value_t = EngineArg::Auto, env = "VMREPL_ENGINE")]
    pub(crate) engine: EngineArg,
    /// Print one JSON object instead of the output
    #[arg(long)]
    pub(crate) json: bool,
    /// With --json: print each event as it happens, one a line
    #[arg(long, requires = "json")]
    pub(crate) stream: bool,
    /// Stop the code after so many seconds (exit code 124)
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) timeout: Option<std::time::Duration>,
    /// Stop code that takes more: time, cpu (seconds), memory, output (bytes, or with K, M, G) or processes; none for no
    /// limit. Said once for each
    #[arg(long = "limit", value_name = "NAME=VALUE")]
    pub(crate) limits: Vec<String>,
    /// Show the tables that the code binds to names
    #[arg(long)]
    pub(crate) show_tables: bool,
    /// With the tables, show their columns and types first
    #[arg(long)]
    pub(crate) show_table_meta: bool,
    /// Bring a file into the guest (DST defaults to the file's name in the working folder)
    #[arg(long = "file", value_name = "SRC[:DST]")]
    pub(crate) files: Vec<String>,
    /// Take a file out of the guest when the code has ended
    #[arg(long = "out", value_name = "GUEST:HOST")]
    pub(crate) outs: Vec<String>,
    /// Tell how long the phases took
    #[arg(long)]
    pub(crate) timing: bool,
    /// Say nothing but what the code says
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// A script (`-` for stdin) and its arguments
    #[arg(
        value_name = "FILE",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) script: Vec<OsString>,
}

/// The user's wish for an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineArg {
    /// The fastest that is known to work here
    Auto,
    /// Hardware virtualisation
    Kvm,
    /// Emulation
    Qemu,
}

impl From<EngineArg> for vmrepl_session::EngineChoice {
    fn from(arg: EngineArg) -> Self {
        match arg {
            EngineArg::Auto => Self::Auto,
            EngineArg::Kvm => Self::Kvm,
            EngineArg::Qemu => Self::Qemu,
        }
    }
}

/// Which cells leave a checkpoint at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum SnapshotArg {
    /// Each
    #[default]
    OnCell,
    /// Those that fail, and the last
    OnFailure,
    /// The last alone: faster, and a process that is killed loses the others
    Off,
}

/// What a restore does to generators that the user has seeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum RngArg {
    /// They go on where they were
    #[default]
    Keep,
    /// They are seeded anew
    Fresh,
}

impl From<RngArg> for vmrepl_session::RngPolicy {
    fn from(arg: RngArg) -> Self {
        match arg {
            RngArg::Keep => Self::Keep,
            RngArg::Fresh => Self::Fresh,
        }
    }
}

/// What follows a cell that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum OnFailureArg {
    /// The session goes on with what it did before it failed
    #[default]
    Keep,
    /// The session stands where it stood before
    Rollback,
}

impl RunArgs {
    /// What the session keeps of its cells.
    pub(crate) fn policy(&self) -> vmrepl_session::Policy {
        use vmrepl_session::{OnFailure, Policy, SnapshotWhen};
        Policy {
            snapshot: match self.snapshot {
                SnapshotArg::OnCell => SnapshotWhen::OnCell,
                SnapshotArg::OnFailure => SnapshotWhen::OnFailure,
                SnapshotArg::Off => SnapshotWhen::Off,
            },
            on_failure: match self.on_failure {
                OnFailureArg::Keep => OnFailure::Keep,
                OnFailureArg::Rollback => OnFailure::Rollback,
            },
        }
    }
}

/// One engine by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OneEngine {
    /// Hardware virtualisation
    Kvm,
    /// Emulation
    Qemu,
}

impl From<OneEngine> for vmrepl_session::EngineKind {
    fn from(arg: OneEngine) -> Self {
        match arg {
            OneEngine::Kvm => Self::Kvm,
            OneEngine::Qemu => Self::Qemu,
        }
    }
}

/// What else can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build a recipe's image, boot it, warm it and freeze it: the template
    Prepare(PrepareArgs),
    /// Check every byte of the templates against its checksum
    Verify {
        /// Only this template
        template: Option<String>,
    },
    /// List the templates, or remove, export or import one
    Templates {
        #[command(subcommand)]
        action: Option<TemplateAction>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Go back in a session: by one cell, or so many
    Undo {
        /// The session
        name: String,
        /// How many cells
        #[arg(default_value_t = 1)]
        steps: u32,
    },
    /// Take an undo back
    Redo {
        /// The session
        name: String,
        /// How many cells
        #[arg(default_value_t = 1)]
        steps: u32,
    },
    /// Go to a cell of a session; 0 is its beginning
    Goto {
        /// The session
        name: String,
        /// The cell
        cell: u32,
    },
    /// Make a session that begins where another one stands
    Fork {
        /// The session, which may run on meanwhile
        name: String,
        /// The name of the new one
        new: String,
        /// Begin at this cell instead
        #[arg(long, value_name = "CELL")]
        at: Option<u32>,
        /// Make so many, named NEW-1, NEW-2 and so on
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: Option<u32>,
    },
    /// Run a program in a session's machine, or on a fresh restore of a template
    Exec(ExecArgs),
    /// Open a shell in a session's machine, or on a fresh restore of a template
    Shell {
        #[command(flatten)]
        target: TargetArgs,
        /// As this user (name or number) instead of the one that cells run as
        #[arg(short, long)]
        user: Option<String>,
    },
    /// Copy a file or a folder into a session's machine, or out of it
    Cp(CpArgs),
    /// Tell of a guest: its memory, what was asked of it and how long that took, its log
    Stats(StatsArgs),
    /// Tell which names differ between two cells of sessions, and how
    Diff(DiffArgs),
    /// Run the cells of a session again on a fresh machine, and tell what comes out otherwise (exit code 1)
    Replay(ReplayArgs),
    /// Run one piece of code under many settings, each on its own copy of a session
    Sweep(SweepArgs),
    /// List the branches of a session: the cells that nothing was run after
    Branches {
        /// The session
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the cells of a session: `*` is where it stands, `|` what led there
    Log(LogArgs),
    /// Show a cell: its code, its output and how it ended
    Show {
        /// NAME@CELL; the cell that it stands at without @CELL
        #[arg(value_name = "NAME@CELL")]
        cell: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write out the cells that led to where a session stands, as a notebook (.ipynb) or a script (.py)
    Export {
        /// The session
        name: String,
        /// The file, by whose ending the form is chosen; without it a script goes to stdout
        file: Option<PathBuf>,
    },
    /// List the sessions, or remove one
    Sessions {
        #[command(subcommand)]
        action: Option<SessionAction>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove the snapshots that no template and no session needs
    Gc {
        /// Also give checkpoints up until sessions take no more than this, such as 10G: branches first, then ways, those
        /// used longest ago first. Where a session stands, and pinned sessions, are kept
        #[arg(long, value_name = "SIZE", value_parser = vmrepl_session::bytes)]
        budget: Option<u64>,
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
    },
    /// Check this host: what was found, what follows, how to mend it
    Doctor {
        /// Fork a machine twice and tell, hazard by hazard, what differs between the copies and what does not
        #[arg(long)]
        copies: bool,
        /// With --copies: the template
        #[arg(
            long,
            value_name = "NAME",
            default_value = "python",
            env = "VMREPL_TEMPLATE"
        )]
        template: String,
        /// With --copies: what runs the machines
        #[arg(long, value_enum, default_value_t = EngineArg::Auto, env = "VMREPL_ENGINE")]
        engine: EngineArg,
        /// With --copies: what happens to generators that were seeded
        #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
        rng: RngArg,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure restore, first cell, later cells and the whole process
    Bench(BenchArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What to prepare.
#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    /// `base`, `python`, `polyglot`, or the path of a recipe
    #[arg(default_value = "python")]
    pub(crate) recipe: String,
    /// Derive a template with one more Python package (a requirement, such as polars==1.35.2)
    #[arg(long = "with", value_name = "PACKAGE")]
    pub(crate) with: Vec<String>,
    /// The template's name (default: the recipe's)
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Freeze it anew even if it is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Say nothing but the result
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// What it is for; `auto` tries KVM first where it may work
    #[arg(long, value_enum, default_value_t = EngineArg::Auto, env = "VMREPL_ENGINE")]
    pub(crate) engine: EngineArg,
}

/// What to do with a template.
#[derive(Debug, Subcommand)]
pub(crate) enum TemplateAction {
    /// Remove a template, for every engine that it is there for
    Rm {
        /// Its name
        name: String,
        /// Only the one for this engine
        #[arg(long, value_enum)]
        engine: Option<OneEngine>,
    },
    /// Write a template to a file that another host can import
    Export {
        /// Its name
        name: String,
        /// The file
        file: PathBuf,
        /// The one for this engine (default: the one that a run would take)
        #[arg(long, value_enum)]
        engine: Option<OneEngine>,
    },
    /// Take a template from a file. It will run what whoever made it has put in: import only what you trust
    Import {
        /// The file
        file: PathBuf,
        /// The name to give it (default: the one it had)
        #[arg(long)]
        name: Option<String>,
    },
}

/// Which cells to list.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// The session
    pub(crate) name: String,
    /// Only cells that did not end well
    #[arg(long)]
    pub(crate) failed: bool,
    /// Only cells whose code or output matches this regular expression
    #[arg(long, value_name = "RE")]
    pub(crate) grep: Option<String>,
    /// Only the last so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to compare.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// NAME@CELL before; without @CELL where it stands
    #[arg(value_name = "BEFORE")]
    pub(crate) before: String,
    /// NAME@CELL afterwards (default: where the session stands)
    #[arg(value_name = "AFTER")]
    pub(crate) after: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to run again.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// NAME, or NAME@CELL for the cells up to that one
    pub(crate) name: String,
    /// Run them on this template instead of the session's own
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) on: Option<String>,
    /// Also tell of the cells that come out as they did
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to try.
#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// The session
    pub(crate) name: String,
    /// The code that runs under each setting; the value of its last expression is the result
    #[arg(short = 'c', value_name = "CODE", allow_hyphen_values = true)]
    pub(crate) code: String,
    /// A name and the values that it takes, as Python: "lr=[0.1, 0.01]", "n=range(3)". Several make all combinations
    #[arg(long = "set", value_name = "NAME=VALUES")]
    pub(crate) settings: Vec<String>,
    /// Move the session to the setting with the largest or the smallest result
    #[arg(long, value_enum)]
    pub(crate) promote: Option<Promote>,
    /// How many machines at once
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) jobs: usize,
    /// Stop code that takes more, as for a run: time, cpu, memory, output, processes
    #[arg(long = "limit", value_name = "NAME=VALUE")]
    pub(crate) limits: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which result is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Promote {
    /// The largest
    Max,
    /// The smallest
    Min,
}

/// What to do with a session.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionAction {
    /// Remove a session and what only it needs
    Rm {
        /// Its name
        name: String,
    },
    /// Keep a session's checkpoints whatever the budget of `vmrepl gc`
    Pin {
        /// Its name
        name: String,
    },
    /// Treat a session as any other again
    Unpin {
        /// Its name
        name: String,
    },
}

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// How often
    #[arg(long, default_value_t = 20)]
    pub(crate) runs: usize,
    /// The template
    #[arg(long, default_value = "python")]
    pub(crate) template: String,
    /// What runs the machine
    #[arg(long, value_enum, default_value_t = EngineArg::Auto, env = "VMREPL_ENGINE")]
    pub(crate) engine: EngineArg,
    /// Measure sessions instead: what a checkpoint costs, and coming back to one
    #[arg(long)]
    pub(crate) sessions: bool,
    /// Measure programs on the languages port instead, beside the same without its sandbox
    #[arg(long, conflicts_with = "sessions")]
    pub(crate) languages: bool,
    /// With --sessions: cells in the chain of checkpoints
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) chain: u32,
    /// With --sessions: also with so much data in a pandas frame, such as 1G
    #[arg(long, value_name = "SIZE", value_parser = vmrepl_session::bytes)]
    pub(crate) data: Option<u64>,
    /// Also tell what so many machines side by side hold of memory, such as 1,10,50
    #[arg(long, value_name = "COUNTS", value_delimiter = ',')]
    pub(crate) machines: Vec<usize>,
    /// A host Python with pandas, to compare `import pandas` with
    #[arg(long, default_value = "python3")]
    pub(crate) python: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn language(name: &str) -> Result<Language, String> {
    name.parse::<Language>().map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    std::time::Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}
