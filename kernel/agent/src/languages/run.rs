//! One request: its source is written, compiled if need be, and run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmrepl_wire::cell::Truncated;
use vmrepl_wire::exec::{BY_SIGNAL, ExecEnd, ExecLimits, ExecUsage};
use vmrepl_wire::languages::{Execute, Outcome, Status};

use super::connection::Connection;
use super::face::Kept;
use super::table::{self, Command, ENVIRONMENT, Toolchain};
use crate::environment::Person;
use crate::exec::{Account, Defaults, Ended, Hangup, Left, Program, Running, Stdio};
use crate::limits;
use crate::sandbox::{IDENTITY, Sandbox};

const FOLDER: &str = "/box";

/// What one command came to.
struct Done {
    status: Status,
    exit_code: i32,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    truncated: Option<Truncated>,
    usage: ExecUsage,
    layers: Vec<String>,
}

/// Compiles and runs; `None` when the peer has gone meanwhile.
pub(super) fn run(
    connection: &Connection,
    request: &Execute,
    sandbox: &Arc<Sandbox>,
    defaults: &Defaults,
) -> Result<Option<Outcome>, String> {
    if defaults.groups.is_none() {
        return Err("programs of strangers need a machine around them".to_owned());
    }
    let opened = sandbox.open_box(limits::BOX_BYTES);
    opened.map_err(|error| format!("make the program's folder: {error}"))?;
    let done = in_box(connection, request, sandbox, defaults);
    sandbox.close_box();
    done
}

fn in_box(
    connection: &Connection,
    request: &Execute,
    sandbox: &Arc<Sandbox>,
    defaults: &Defaults,
) -> Result<Option<Outcome>, String> {
    let chain = table::of(request.language);
    let source = Path::new(FOLDER).join(chain.source);
    fs::write(&source, &request.code).map_err(|error| format!("write the source: {error}"))?;
    let start = |command: Command, input: &[u8], wall: Duration, limits: ExecLimits| {
        let program = program(&chain, command, limits, sandbox)?;
        step(connection, &program, input, wall, defaults)
    };
    let began = Instant::now();
    for command in chain.compile {
        let compiled = start(command, &[], limits::COMPILE_WALL, COMPILE)?;
        let Some(compiled) = compiled else {
            return Ok(None);
        };
        if compiled.status != Status::Success {
            let status = match compiled.status {
                Status::RuntimeError => Status::CompilationError,
                other => other,
            };
            let took = began.elapsed();
            return Ok(Some(outcome(
                request,
                Done { status, ..compiled },
                took,
                true,
            )));
        }
    }
    let compiling = match chain.compile {
        [] => Duration::ZERO,
        _ => began.elapsed(),
    };
    let wall = Duration::from_millis(request.timeout_ms);
    let run_limits = ExecLimits {
        cpu_ms: Some(request.timeout_ms),
        memory_bytes: Some(request.memory_limit_bytes),
        ..RUN
    };
    let ran = start(chain.run, &request.stdin, wall, run_limits)?;
    Ok(ran.map(|ran| outcome(request, ran, compiling, false)))
}

/// A compiler's limits: the request's are for the program.
const COMPILE: ExecLimits = ExecLimits {
    cpu_ms: None,
    memory_bytes: Some(limits::COMPILE_MEMORY_BYTES),
    processes: Some(limits::SANDBOX_PROCESSES),
    open_files: Some(limits::SANDBOX_OPEN_FILES),
    file_bytes: Some(limits::BOX_BYTES),
};

const RUN: ExecLimits = ExecLimits {
    cpu_ms: None,
    memory_bytes: None,
    processes: Some(limits::SANDBOX_PROCESSES),
    open_files: Some(limits::SANDBOX_OPEN_FILES),
    file_bytes: Some(limits::BOX_BYTES),
};

fn program(
    chain: &Toolchain,
    command: Command,
    limits: ExecLimits,
    sandbox: &Arc<Sandbox>,
) -> Result<Program, String> {
    let own = [("TMPDIR", "/tmp")];
    let pairs = ENVIRONMENT.iter().chain(chain.environment).chain(&own);
    Ok(Program {
        command: chain.fill(command).into_iter().map(Into::into).collect(),
        called: None,
        env: pairs
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        cwd: Some(PathBuf::from(FOLDER)),
        account: Account {
            identity: IDENTITY,
            person: Some(Person {
                name: "sandbox".to_owned(),
                home: PathBuf::from(FOLDER),
                shell: "/bin/sh".to_owned(),
            }),
        },
        stdio: Stdio::Pipes { input: true },
        limits,
        sandbox: Some(Arc::clone(sandbox)),
    })
}

/// Runs one command; `None` when the peer has gone meanwhile.
fn step(
    connection: &Connection,
    program: &Program,
    input: &[u8],
    wall: Duration,
    defaults: &Defaults,
) -> Result<Option<Done>, String> {
    let bare = Defaults {
        environment: Vec::new(),
        ..defaults.clone()
    };
    let mut running = Running::start(program, &bare).map_err(|error| error.to_string())?;
    let mut kept = Kept::new(std::os::fd::AsFd::as_fd(connection), input);
    let ended = match running.watch(&mut kept, Some(wall)) {
        Ok(ended) => ended,
        Err(Hangup) if kept.flooded => running.stop(),
        Err(Hangup) => return Ok(None),
    };
    let layers = running.layers();
    let (status, exit_code) = meaning(&ended);
    let (stdout_cut, stderr_cut) = kept.cut;
    let mut stderr = kept.stderr;
    if kept.flooded {
        let most = limits::LANGUAGES_WRITTEN_BYTES >> 20;
        stderr.extend_from_slice(format!("\nkilled: it wrote more than {most} MiB\n").as_bytes());
        stderr.truncate(vmrepl_wire::limits::LANGUAGES_OUTPUT_BYTES);
    }
    Ok(Some(Done {
        status,
        exit_code,
        stdout: kept.stdout,
        stderr,
        truncated: (stdout_cut || stderr_cut).then_some(Truncated {
            stdout: stdout_cut,
            stderr: stderr_cut,
        }),
        usage: ended.usage,
        layers,
    }))
}

fn meaning(ended: &Ended) -> (Status, i32) {
    let code = match ended.left {
        Some(Left::Code(code)) => code,
        Some(Left::Signal(signal)) => BY_SIGNAL + signal,
        None => BY_SIGNAL + libc::SIGKILL,
    };
    let status = match (ended.end, code) {
        (ExecEnd::TimedOut | ExecEnd::CpuExceeded, _) => Status::Timeout,
        (ExecEnd::MemoryExceeded, _) => Status::MemoryExceeded,
        (_, 0) => Status::Success,
        _ => Status::RuntimeError,
    };
    (status, code)
}

fn outcome(request: &Execute, done: Done, compiling: Duration, never_ran: bool) -> Outcome {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let usage = done.usage;
    Outcome {
        id: request.id.clone(),
        status: done.status,
        stdout: done.stdout,
        stderr: done.stderr,
        exit_code: done.exit_code,
        execution_time_ms: if never_ran { 0 } else { usage.wall_us / 1000 },
        memory_used_bytes: usage.peak_memory_bytes,
        compilation_time_ms: milliseconds(compiling),
        cpu_user_ms: Some(usage.user_us / 1000),
        cpu_system_ms: Some(usage.system_us / 1000),
        sandbox: Some(done.layers),
        truncated: done.truncated,
    }
}
