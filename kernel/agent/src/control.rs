//! Port 9: what the host asks of the agent itself.

use std::time::Instant;

use rustix::process::Pid;
use vmrepl_wire::GENERATION;
use vmrepl_wire::control::{ControlReply, ControlRequest, KillTarget, RngPolicy, Stats};
use vmrepl_wire::runner::Kind;

use crate::client::{Number, Service};
use crate::core::{Core, Gate};
use crate::{ledger, limits, log, processes};

/// A control connection begins.
pub(crate) fn welcome(core: &mut Core, client: Number) {
    if core.keeper.is_ready() {
        let generation = core.generation;
        core.reply(client, &ControlReply::RunnerReady { generation });
    }
}

/// Handles every request that has come. `others` are children of the agent that are not the
/// runner's.
pub(crate) fn take_requests(core: &mut Core, others: &[Pid]) {
    let numbers: Vec<Number> = core
        .clients
        .iter_mut()
        .filter(|(_, client)| matches!(client.service, Service::Control))
        .filter(|(_, client)| client.has_lines || client.is_readable())
        .map(|(number, _)| number)
        .collect();
    for number in numbers {
        core.clients.read(number);
        while let Some(request) = next_request(core, number) {
            // Words, not the mere end of a connection: that may be one of a former life.
            core.spoken_to();
            match request {
                Ok(request) => handle(core, number, request, others),
                Err(message) => core.reply(number, &ControlReply::Error { message }),
            }
        }
        core.clients.acknowledge(number);
    }
}

/// The next request; none when the client reads its answers too slowly to be given more.
fn next_request(core: &mut Core, number: Number) -> Option<Result<ControlRequest, String>> {
    let client = core.clients.get_mut(number)?;
    if client.out.len() > limits::OUTBOX_SOFT_BYTES {
        return None;
    }
    client.held_bytes = 0;
    let line = match client.lines.line() {
        Some(Ok(line)) => line,
        Some(Err(error)) => return Some(Err(error.to_string())),
        None if client.ended => client.lines.rest().unwrap_or_default(),
        None => &[],
    };
    if line.is_empty() {
        client.has_lines = false;
        return None;
    }
    Some(serde_json::from_slice(line).map_err(|error| format!("control request: {error}")))
}

fn handle(core: &mut Core, client: Number, request: ControlRequest, others: &[Pid]) {
    match request {
        ControlRequest::Resumed {
            generation,
            entropy,
            realtime_ns,
            hostname,
            rng,
        } => {
            let applied = if core.in_machine() {
                core.identity
                    .renew(entropy.as_bytes(), realtime_ns, hostname.as_deref())
            } else {
                Ok(())
            };
            resumed(core, client, generation, rng, applied);
        }
        ControlRequest::Quiesce => core.begin_quiesce(client),
        ControlRequest::Wake => {}
        ControlRequest::Interrupt { cell } => {
            let acted = interrupt(core, &cell);
            core.reply(client, &ControlReply::Interrupt { cell, acted });
        }
        ControlRequest::Kill { cell, target } => {
            let killed = kill(core, cell.as_deref(), target, others);
            core.reply(
                client,
                &ControlReply::Kill {
                    acted: killed > 0,
                    killed,
                },
            );
        }
        ControlRequest::Stats => {
            let stats = stats(core);
            core.reply(client, &ControlReply::Stats(stats));
        }
        ControlRequest::Logs => {
            let lines = log::lines();
            core.reply(client, &ControlReply::Logs { lines });
        }
        ControlRequest::LogLevel { level } => {
            ledger::set_level(level);
            core.reply(client, &ControlReply::LogLevel { level });
        }
        ControlRequest::Shutdown => core.leaving = true,
    }
}

fn resumed(
    core: &mut Core,
    client: Number,
    generation: u64,
    rng: RngPolicy,
    applied: Result<(), String>,
) {
    core.generation = generation;
    if let Err(error) = applied {
        core.gate = Gate::Shut;
        let message = format!("resume {generation}: {error}");
        return core.reply(client, &ControlReply::Error { message });
    }
    let deadline = Some(Instant::now() + limits::RESUME_ACK);
    core.gate = Gate::Waiting {
        client,
        generation,
        deadline,
    };
    let rng = match rng {
        RngPolicy::Keep => "keep",
        RngPolicy::Fresh => "fresh",
    };
    let message = serde_json::json!({ "generation": generation, "rng": rng }).to_string();
    match core.keeper.runner() {
        Some(runner) => runner.send(Kind::Resumed, 0, message.as_bytes()),
        // The one that will be started draws its numbers afresh.
        None => core.acknowledged(generation),
    }
}

/// Stops the named cell, or keeps it from running if it waits. Whether there is such a cell.
fn interrupt(core: &mut Core, cell: &str) -> bool {
    if !runs(core, Some(cell)) {
        // The two travel on streams of their own: the cell's request may have come in this very turn.
        core.take_requests();
    }
    let running = runs(core, Some(cell));
    let waits = !running && core.relay.requests.runs(cell);
    match core.keeper.ready_runner() {
        Some(runner) if running => runner.interrupt(cell),
        Some(runner) if waits => {
            runner.forestall(cell);
            true
        }
        _ => false,
    }
}

/// Whether the named cell, or any cell when none is named, runs.
fn runs(core: &Core, name: Option<&str>) -> bool {
    core.relay
        .cell
        .as_ref()
        .is_some_and(|cell| name.is_none_or(|name| cell.name == name))
}

fn kill(core: &mut Core, cell: Option<&str>, target: KillTarget, others: &[Pid]) -> u32 {
    match target {
        KillTarget::Runner if cell.is_some() && !runs(core, cell) => 0,
        KillTarget::Runner => u32::from(core.keeper.kill_runner()),
        KillTarget::Children => match &core.relay.cell {
            Some(running) if runs(core, cell) => {
                core.keeper.kill_started_since(running.since, others)
            }
            _ => 0,
        },
    }
}

fn stats(core: &Core) -> Stats {
    let own = processes::resident(rustix::process::getpid());
    let (mem_total_bytes, mem_available_bytes) = processes::memory();
    let runner = core.keeper.pid();
    Stats {
        agent_rss_bytes: own.total_bytes,
        agent_anon_bytes: own.anonymous_bytes,
        uptime_ms: processes::uptime_ms(),
        mem_total_bytes,
        mem_available_bytes,
        runner_pid: runner.and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok()),
        runner_rss_bytes: runner.map_or(0, |pid| processes::resident(pid).total_bytes),
        linux: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        wire_generation: GENERATION,
        requests: ledger::tallies(),
    }
}
