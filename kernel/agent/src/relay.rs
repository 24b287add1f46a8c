//! Between the clients of the cells port and the runner: requests one way, lines, answers and
//! captured output the other.
//!
//! Order, each rule with its reason:
//! - before a line or an answer is passed on, the output pipes are emptied of what they hold at that
//!   moment: what was printed before comes before;
//! - an answer's output is out of the pipes before the runner is told so, and only then does a
//!   runner that asks for it start the next cell: output is never another cell's.

use std::collections::VecDeque;
use std::time::Instant;

use serde::Deserialize;
use vmrepl_wire::cell::{CellLimits, OutputStream};
use vmrepl_wire::runner::{Kind, split_done};

use crate::bounds::Bounds;
use crate::client::Number;
use crate::clients::Clients;
use crate::output::{Captured, Mode, Output, write_answer};
use crate::processes::StartTicks;
use crate::requests::{Failure, Head, Requests, write_failure};
use crate::runner::Runner;
use crate::{ledger, limits};

/// The cell that runs.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) name: String,
    client: Number,
    id: Option<String>,
    stream: bool,
    extended: bool,
    /// Processes that started later are the cell's.
    pub(crate) since: StartTicks,
    began: Instant,
    pub(crate) bounds: Bounds,
}

/// What the runner says when a cell starts.
#[derive(Debug, Deserialize)]
struct Started {
    cell: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    extended: bool,
    #[serde(default)]
    output_bytes: Option<u64>,
    #[serde(default)]
    limits: Option<CellLimits>,
}

#[derive(Debug, Deserialize)]
struct Ready {
    /// The runner waits for word that an answer's output was taken.
    #[serde(default)]
    taken: bool,
}

#[derive(Debug, Deserialize)]
struct Ack {
    generation: u64,
}

#[derive(Debug, Deserialize)]
struct Identified {
    #[serde(default)]
    id: Option<String>,
}

/// What the rest of the agent must know of what the runner said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    Ready,
    Resumed {
        generation: u64,
    },
    /// Frames that no honest runner sends.
    Broken(String),
}

/// The relay's memory.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    pub(crate) requests: Requests,
    pub(crate) cell: Option<Cell>,
    output: Output,
    /// When the next cell could begin at the earliest: what it starts is not older. The runner's word that
    /// it has begun may be heard late.
    free_since: StartTicks,
    /// Output of cells with an id that have ended, for clients that ask again.
    finished: VecDeque<(String, Captured)>,
    /// The runner wants to know when output was taken.
    tells_taken: bool,
    /// Answers whose output was taken and of which the runner was not told yet.
    untold: u32,
    /// Frames are left in the decoder because a client reads too slowly.
    pub(crate) frames_wait: bool,
}

impl Relay {
    /// Whether a cell runs or a request waits for its answer.
    pub(crate) fn is_busy(&self) -> bool {
        self.cell.is_some() || !self.requests.is_empty()
    }

    /// Passes a request on.
    pub(crate) fn request(&mut self, client: Number, line: &[u8], runner: &mut Runner) {
        self.tell_taken(runner);
        if !self.is_busy() {
            self.free_since = StartTicks::now();
        }
        runner.send(Kind::Request, client, line);
        self.requests.sent(client, line);
    }

    /// A client is gone: its cells go on, their answers are dropped.
    pub(crate) fn closed(&mut self, client: Number, runner: Option<&mut Runner>) {
        if let Some(runner) = runner {
            runner.send(Kind::Closed, client, &[]);
        }
        self.requests.forget(client);
    }

    fn tell_taken(&mut self, runner: &mut Runner) {
        for _ in 0..std::mem::take(&mut self.untold) {
            runner.send_taken();
        }
    }

    /// Handles the frames that have come. Stops early when the client of a streaming cell reads too
    /// slowly; the rest waits.
    pub(crate) fn frames(&mut self, runner: &mut Runner, clients: &mut Clients) -> Vec<News> {
        self.handle_frames(runner, clients, Self::is_held_back)
    }

    /// Handles all that a runner which has ended still said.
    pub(crate) fn last_frames(&mut self, runner: &mut Runner, clients: &mut Clients) -> Vec<News> {
        let news = self.handle_frames(runner, clients, |_, _| false);
        self.take_output(runner, clients, Runner::drain_output);
        news
    }

    fn handle_frames(
        &mut self,
        runner: &mut Runner,
        clients: &mut Clients,
        wait: impl Fn(&Self, &Clients) -> bool,
    ) -> Vec<News> {
        let mut news = Vec::new();
        // The decoder lends its payloads, while the pipes are read between frames.
        let mut frames = std::mem::take(&mut runner.frames);
        loop {
            self.frames_wait = wait(self, clients);
            if self.frames_wait {
                break;
            }
            let frame = match frames.frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    news.push(News::Broken(error.to_string()));
                    break;
                }
            };
            let handled = self.frame(frame.kind, frame.connection, frame.payload, runner, clients);
            match handled {
                Ok(told) => news.extend(told),
                Err(broken) => {
                    news.push(News::Broken(broken));
                    break;
                }
            }
        }
        runner.frames = frames;
        news
    }

    fn frame(
        &mut self,
        kind: Kind,
        client: Number,
        payload: &[u8],
        runner: &mut Runner,
        clients: &mut Clients,
    ) -> Result<Option<News>, String> {
        match kind {
            Kind::Ready => {
                self.tells_taken = parse::<Ready>(kind, payload)?.taken;
                return Ok(Some(News::Ready));
            }
            Kind::ResumedAck => {
                let generation = parse::<Ack>(kind, payload)?.generation;
                return Ok(Some(News::Resumed { generation }));
            }
            Kind::Received => {
                let runs = self
                    .requests
                    .received(client, parse::<Head>(kind, payload)?);
                if runs {
                    self.tell_taken(runner);
                }
            }
            Kind::Started => self.started(client, parse::<Started>(kind, payload)?, clients),
            Kind::Line => self.line(client, payload, runner, clients),
            Kind::Done => {
                let (prefix, suffix) = split_done(payload).map_err(|error| error.to_string())?;
                self.done(client, prefix, suffix, runner, clients);
            }
            Kind::Request
            | Kind::Closed
            | Kind::Resumed
            | Kind::Exit
            | Kind::Taken
            | Kind::Signalled
            | Kind::Exceeded => {
                return Err(format!(
                    "it sent a {kind:?} frame, which only the agent sends"
                ));
            }
        }
        Ok(None)
    }

    fn started(&mut self, client: Number, started: Started, clients: &mut Clients) {
        let Started {
            cell: name,
            id,
            stream,
            extended,
            output_bytes,
            limits: bounds,
        } = started;
        let mode = if stream {
            Mode::Send {
                limit_bytes: output_bytes.unwrap_or(u64::MAX),
            }
        } else {
            let most = limits::CAPTURE_HEAD_BYTES + limits::CAPTURE_TAIL_BYTES;
            let asked = output_bytes.and_then(|bytes| usize::try_from(bytes).ok());
            Mode::Keep {
                limit_bytes: asked.map_or(most, |asked| asked.min(most)),
            }
        };
        self.output.begin(mode, id.as_deref(), clients.sink(client));
        self.cell = Some(Cell {
            name,
            client,
            id,
            stream,
            extended,
            since: self.free_since,
            began: Instant::now(),
            bounds: Bounds::new(bounds.unwrap_or_default()),
        });
    }

    fn line(&mut self, client: Number, line: &[u8], runner: &mut Runner, clients: &mut Clients) {
        self.take_output(runner, clients, Runner::drain_output);
        if let Some(client) = clients.get_mut(client) {
            client.out.push(line);
            if !line.ends_with(b"\n") {
                client.out.push(b"\n");
            }
        }
        if !line.starts_with(b"{\"type\"") {
            self.requests.answered(client, false, || id_of(line));
        }
    }

    fn done(
        &mut self,
        client: Number,
        prefix: &[u8],
        suffix: &[u8],
        runner: &mut Runner,
        clients: &mut Clients,
    ) {
        self.take_output(runner, clients, Runner::drain_output);
        let whole = || id_of(&[b"{", suffix].concat());
        let captured = match self.cell.take() {
            Some(cell) if cell.client == client => {
                let captured = self.output.end(cell.id.as_deref(), clients.sink(client));
                ledger::count("cell", tells_zero(prefix), cell.began.elapsed());
                self.untold += u32::from(self.tells_taken);
                self.free_since = StartTicks::now();
                self.remember(cell.id, captured)
            }
            // Somebody asks for a result again, or asked twice for the same: no cell ran for it.
            other => {
                self.cell = other;
                whole().and_then(|id| self.recall(&id)).unwrap_or_default()
            }
        };
        if let Some(client) = clients.get_mut(client) {
            write_answer(prefix, &captured, suffix, &mut client.out);
        }
        self.requests.answered(client, true, whole);
        if self.requests.any_run() {
            self.tell_taken(runner);
        }
    }

    fn remember(&mut self, id: Option<String>, captured: Captured) -> Captured {
        if let Some(id) = id.filter(|_| captured.len() <= limits::REMEMBERED_OUTPUT_BYTES) {
            self.finished.push_back((id, captured.clone()));
            if self.finished.len() > limits::REMEMBERED_CELLS {
                self.finished.pop_front();
            }
        }
        captured
    }

    fn recall(&self, id: &str) -> Option<Captured> {
        let (_, captured) = self.finished.iter().rev().find(|(known, _)| known == id)?;
        Some(captured.clone())
    }

    /// Whether the running cell's client must read before more is taken for it.
    pub(crate) fn is_held_back(&self, clients: &Clients) -> bool {
        self.cell.as_ref().is_some_and(|cell| {
            let client = clients.get(cell.client).filter(|_| cell.stream);
            client.is_some_and(|client| client.out.len() > limits::OUTBOX_SOFT_BYTES)
        })
    }

    /// Takes output that has come, a little of it.
    pub(crate) fn output(&mut self, runner: &mut Runner, clients: &mut Clients) {
        if !self.is_held_back(clients) {
            self.take_output(runner, clients, Runner::read_output);
        }
    }

    fn take_output(
        &mut self,
        runner: &mut Runner,
        clients: &mut Clients,
        read: impl FnOnce(&mut Runner, &mut dyn FnMut(OutputStream, &[u8])),
    ) {
        let Self { cell, output, .. } = self;
        let mut taken = 0;
        let id = cell.as_ref().and_then(|cell| cell.id.as_deref());
        let out = clients.sink(cell.as_ref().map_or(0, |cell| cell.client));
        read(runner, &mut |stream, bytes| {
            taken += bytes.len();
            output.take(stream, bytes, id, out);
        });
        if let Some(cell) = cell {
            cell.bounds.wrote(taken);
        }
    }

    /// The runner is gone: answers what is open in its place. Returns the cell that ran.
    pub(crate) fn lost(&mut self, failure: Failure<'_>, clients: &mut Clients) -> Option<String> {
        let cell = self.cell.take();
        let mut of_cell = None;
        if let Some(cell) = &cell {
            ledger::count("cell", false, cell.began.elapsed());
            let captured = self
                .output
                .end(cell.id.as_deref(), clients.sink(cell.client));
            of_cell = Some((cell.client, cell.id.clone(), captured));
        }
        for (number, mut head) in self.requests.take_all() {
            let Some(client) = clients.get_mut(number) else {
                continue;
            };
            let ran = of_cell.take_if(|(owner, id, _)| *owner == number && *id == head.id);
            match (ran, &cell) {
                (Some((_, id, captured)), Some(cell)) => {
                    head = Head::of_cell(id, cell.stream);
                    write_failure(failure, &head, cell.extended, &captured, &mut client.out);
                }
                _ => write_failure(failure, &head, false, &Captured::default(), &mut client.out),
            }
        }
        self.output.clear();
        self.untold = 0;
        self.tells_taken = false;
        self.finished.clear();
        cell.map(|cell| cell.name)
    }
}

fn parse<'a, T: Deserialize<'a>>(kind: Kind, payload: &'a [u8]) -> Result<T, String> {
    // An array would do for serde, which takes its items for the fields in order.
    if !payload.trim_ascii_start().starts_with(b"{") {
        return Err(format!(
            "it sent a {kind:?} frame with what is no JSON object"
        ));
    }
    serde_json::from_slice(payload)
        .map_err(|error| format!("it sent a {kind:?} frame with {error}"))
}

/// Whether the first part of an answer has the exit code 0.
fn tells_zero(prefix: &[u8]) -> bool {
    let zero = b"\"exit_code\": 0,";
    prefix.windows(zero.len()).any(|bytes| bytes == zero)
}

fn id_of(line: &[u8]) -> Option<String> {
    serde_json::from_slice::<Identified>(line).ok()?.id
}
