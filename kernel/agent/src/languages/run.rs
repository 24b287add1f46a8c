//! One request: its source is written, compiled if need be, and run.

use std::sync::Arc;
use std::time::Duration;

use vmrepl_wire::cell::Truncated;
use vmrepl_wire::exec::{BY_SIGNAL, ExecEnd, ExecLimits, ExecUsage};
use vmrepl_wire::languages::{Execute, Outcome, Status};

use super::build::{Built, Owner, Source};
use super::connection::Connection;
use super::face::Kept;
use crate::exec::{Defaults, Ended, Hangup, Left, Program, Running, Stdio};
use crate::limits;
use crate::sandbox::{IDENTITY, Sandbox};

/// What one command came to.
struct Done {
    ended: Ended,
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
    let owner = Owner::Stranger(Arc::clone(sandbox));
    let source = Source::new(request.language, &request.code, owner)?;
    let opened = sandbox.open_box(limits::BOX_BYTES, IDENTITY);
    opened.map_err(|error| format!("make the program's folder: {error}"))?;
    let done = in_box(connection, request, &source, defaults);
    sandbox.close_box();
    done
}

fn in_box(
    connection: &Connection,
    request: &Execute,
    source: &Source<'_>,
    defaults: &Defaults,
) -> Result<Option<Outcome>, String> {
    let mut last = None;
    let built = source.build(&mut |compiler, wall| {
        last = step(connection, compiler, &[], wall, defaults)?;
        Ok(last.as_ref().map(|done| done.ended))
    })?;
    let (compiling, is_cached) = match (built, last) {
        (Some(Built::Ready { took, is_cached }), _) => (took, is_cached),
        (Some(Built::Failed { took, .. }), Some(compiled)) => {
            let status = match compiled.status {
                Status::RuntimeError => Status::CompilationError,
                other => other,
            };
            let refused = Done { status, ..compiled };
            return Ok(Some(Outcome {
                execution_time_ms: 0,
                ..outcome(request, refused, took)
            }));
        }
        _ => return Ok(None),
    };
    let limits = ExecLimits {
        cpu_ms: Some(request.timeout_ms),
        memory_bytes: Some(request.memory_limit_bytes),
        processes: Some(limits::SANDBOX_PROCESSES),
        open_files: Some(limits::SANDBOX_OPEN_FILES),
        file_bytes: Some(limits::BOX_BYTES),
    };
    let program = source.runs(Vec::new(), Stdio::Pipes { input: true }, limits);
    let wall = Duration::from_millis(request.timeout_ms);
    let ran = step(connection, &program, &request.stdin, wall, defaults)?;
    Ok(ran.map(|ran| Outcome {
        cached: is_cached.then_some(true),
        ..outcome(request, ran, compiling)
    }))
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
        ended,
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

fn outcome(request: &Execute, done: Done, compiling: Duration) -> Outcome {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let usage = done.usage;
    Outcome {
        id: request.id.clone(),
        status: done.status,
        stdout: done.stdout,
        stderr: done.stderr,
        exit_code: done.exit_code,
        execution_time_ms: usage.wall_us / 1000,
        memory_used_bytes: usage.peak_memory_bytes,
        compilation_time_ms: milliseconds(compiling),
        cpu_user_ms: Some(usage.user_us / 1000),
        cpu_system_ms: Some(usage.system_us / 1000),
        sandbox: Some(done.layers),
        truncated: done.truncated,
        cached: None,
    }
}
