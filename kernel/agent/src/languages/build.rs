//! From a source to a program that can be started: it is written, and compiled if need be.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmrepl_wire::exec::ExecLimits;
use vmrepl_wire::languages::Language;

use super::cache::{Cache, Key, Part};
use super::table::{self, ENVIRONMENT, Toolchain};
use crate::environment::Person;
use crate::exec::{Account, Ended, Left, Program, Stdio};
use crate::limits;
use crate::log;
use crate::sandbox::{IDENTITY, Sandbox};

/// Where source and output lie.
const FOLDER: &str = "/box";

/// Whose program it is.
#[derive(Debug, Clone)]
pub(crate) enum Owner {
    /// A stranger's: shut in, with its folder as its home.
    Stranger(Arc<Sandbox>),
    /// The machine's user's: it runs as they do.
    User(Account),
}

/// A program as its source.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    chain: Toolchain,
    language: Language,
    code: &'a [u8],
    owner: Owner,
}

/// Runs a compiler to its end, within a time; `None` when nobody wants to know any more.
pub(crate) type Compile<'a> = dyn FnMut(&Program, Duration) -> Result<Option<Ended>, String> + 'a;

/// What a build has come to.
#[derive(Debug)]
pub(crate) enum Built {
    /// What is run lies in the folder.
    Ready {
        /// How long it took.
        took: Duration,
        /// It was compiled before.
        is_cached: bool,
    },
    /// A compiler refused it, or was stopped.
    Failed {
        /// How long it took.
        took: Duration,
        /// How the compiler ended.
        ended: Ended,
    },
}

/// What is missing for a language in this machine, for people.
pub(crate) fn lack(language: Language) -> Option<String> {
    let chain = table::of(language);
    let commands = chain.compile.iter().chain([&chain.run]);
    let tools = commands.filter_map(|words| words.first());
    let mut missing = tools.filter(|tool| tool.starts_with('/') && !Path::new(tool).exists());
    let tool = missing.next()?;
    Some(format!(
        "there is no {language} in this machine: {tool} is missing (the recipe `polyglot` has it)"
    ))
}

impl<'a> Source<'a> {
    /// Refuses a language whose toolchain this machine has not.
    pub(crate) fn new(language: Language, code: &'a [u8], owner: Owner) -> Result<Self, String> {
        let chain = table::of(language);
        if let Some(missing) = lack(language) {
            return Err(missing);
        }
        Ok(Self {
            chain,
            language,
            code,
            owner,
        })
    }

    /// Makes what is run.
    pub(crate) fn build(&self, run: &mut Compile<'_>) -> Result<Option<Built>, String> {
        let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
        let began = Instant::now();
        let ready = |is_cached| {
            let took = match self.chain.compile {
                [] => Duration::ZERO,
                _ => began.elapsed(),
            };
            Ok(Some(Built::Ready { took, is_cached }))
        };
        let path = |name: &str| Path::new(FOLDER).join(name);
        let written = fs::write(path(self.chain.source), self.code);
        written.map_err(|error| failed("write the source", error))?;
        if self.chain.compile.is_empty() {
            return ready(false);
        }
        let (key, output) = (Key::of(self.language, self.code), path(self.chain.output));
        let cache = Cache::of(match self.owner {
            Owner::Stranger(_) => Part::Strangers,
            Owner::User(_) => Part::Owner,
        });
        let found = cache.fetch(&key, &output);
        if found.map_err(|error| failed("take what was compiled before", error))? {
            return ready(true);
        }
        for command in self.chain.compile {
            let words = self.chain.fill(command, "");
            let Some(ended) = run(&self.compiler(words), limits::COMPILE_WALL)? else {
                return Ok(None);
            };
            if ended.left != Some(Left::Code(0)) {
                let took = began.elapsed();
                return Ok(Some(Built::Failed { took, ended }));
            }
        }
        if let Err(error) = cache.keep(&key, &output) {
            // It is compiled again next time.
            log::warn(format_args!("keep what was compiled: {error}"));
        }
        ready(false)
    }

    fn compiler(&self, words: Vec<String>) -> Program {
        Program {
            cwd: Some(PathBuf::from(FOLDER)),
            ..self.program(words, Stdio::Pipes { input: false }, COMPILE)
        }
    }

    /// What was built, as a program with these arguments. A stranger's starts in its folder, a user's at home.
    pub(crate) fn runs(&self, arguments: Vec<String>, stdio: Stdio, limits: ExecLimits) -> Program {
        let (folder, cwd) = match self.owner {
            Owner::Stranger(_) => ("", Some(PathBuf::from(FOLDER))),
            Owner::User(_) => ("/box/", None),
        };
        let mut words = self.chain.fill(self.chain.run, folder);
        words.extend(arguments);
        Program {
            cwd,
            ..self.program(words, stdio, limits)
        }
    }

    fn program(&self, words: Vec<String>, stdio: Stdio, limits: ExecLimits) -> Program {
        let own = [("TMPDIR", "/tmp")];
        let pairs = ENVIRONMENT.iter().chain(self.chain.environment).chain(&own);
        let pairs = pairs.map(|(name, value)| (name.into(), value.into()));
        let (account, sandbox) = match &self.owner {
            Owner::Stranger(sandbox) => (stranger(), Some(Arc::clone(sandbox))),
            Owner::User(account) => (account.clone(), None),
        };
        Program {
            command: words.into_iter().map(Into::into).collect(),
            called: None,
            env: pairs.collect(),
            cwd: None,
            account,
            stdio,
            limits,
            sandbox,
        }
    }
}

fn stranger() -> Account {
    Account {
        identity: IDENTITY,
        person: Some(Person {
            name: "sandbox".to_owned(),
            home: PathBuf::from(FOLDER),
            shell: "/bin/sh".to_owned(),
        }),
    }
}

/// A compiler's limits: the request's are for the program.
const COMPILE: ExecLimits = ExecLimits {
    cpu_ms: None,
    memory_bytes: Some(limits::COMPILE_MEMORY_BYTES),
    processes: Some(limits::SANDBOX_PROCESSES),
    open_files: Some(limits::SANDBOX_OPEN_FILES),
    file_bytes: Some(limits::BOX_BYTES),
};
