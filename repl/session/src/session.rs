//! A live session: one restored machine and the cells that run on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmrepl_machine::{Engine, Machine, Purpose};
use vmrepl_snapshots::SnapshotId;
use vmrepl_wire::cell::{Answer, Event, Request, Status, StoppedBy};
use vmrepl_wire::control::{ControlReply, ControlRequest, RngPolicy, Stats};
use vmrepl_wire::languages::Language;

use crate::cell::{Cell, Input, Sink};
use crate::cell_limits::{Limits, milliseconds};
use crate::command::command_of;
use crate::error::SessionError;
use crate::fresh::{Begin, Fresh, Order, micros};
use crate::guest::{Control, Lines, Waited, parse};
use crate::hygiene;
use crate::interrupt::{Interrupter, Ladder, Running};
use crate::limits::RESUME_DEADLINE;
use crate::places::{Places, RunFolder};
use crate::pool::{Pool, PoolSize, Way};
use crate::standing::Lasting;
use crate::template::{TemplateName, expect_language};

/// A live session. Dropping it ends its machine.
#[derive(Debug)]
pub struct Session {
    // Fields drop in this order: conversations, then the machine, then its folder.
    pub(crate) cells: Lines,
    pub(crate) control: Control,
    pub(crate) running: Arc<Running>,
    pub(crate) machine: Machine,
    run: RunFolder,
    pub(crate) order: Order,
    /// What its machine was restored from.
    pub(crate) restored: SnapshotId,
    pub(crate) pool: Option<Pool>,
    info: Info,
    times: Times,
    next_cell: u64,
    /// Of the last resume.
    pub(crate) generation: u64,
    runner_lost: bool,
    pub(crate) limits: Limits,
    language: Language,
    /// In a session with a name.
    pub(crate) lasting: Option<Lasting>,
}

/// What a session is.
#[derive(Debug, Clone)]
pub struct Info {
    /// The template that it was restored from.
    pub template: String,
    /// The engine.
    pub engine: &'static str,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// The guest's Linux release.
    pub linux: String,
    /// The machine's socket, which takes `CONNECT <port>`.
    pub socket: PathBuf,
    /// The process that runs the machine.
    pub process_id: u32,
    /// How the machine was made.
    pub way: Way,
}

/// When the phases of a restore ended, in microseconds since it began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// The template was found and its state read.
    pub opened_us: u64,
    /// The engine's process was started.
    pub process_us: u64,
    /// The streams were opened and the resume was sent.
    pub linked_us: u64,
    /// The guest had acknowledged the resume. Set when the first answer is waited for.
    pub resumed_us: u64,
    /// The first cell had ended.
    pub first_cell_us: u64,
}

impl Session {
    /// Restores a template. The resume is sent, but nothing is waited for: the first cell may follow
    /// at once and is held back in the guest until the resume is done.
    ///
    /// The calling thread must outlive the session.
    ///
    /// # Errors
    /// When the template cannot be read or belongs elsewhere, or the engine cannot start.
    pub fn restore(
        places: &Places,
        engine: &Engine,
        name: &TemplateName,
        purpose: Purpose,
    ) -> Result<Self, SessionError> {
        let order = Order {
            places: places.clone(),
            engine: engine.clone(),
            name: name.clone(),
            at: None,
            purpose,
            rng: RngPolicy::Keep,
        };
        let began = Instant::now();
        let fresh = order.fill(None, Begin::Running)?;
        Self::begin(order, fresh, Way::Nothing, began)
    }

    /// Makes a fresh machine a session: it hears that it is a copy, and its socket is opened.
    pub(crate) fn begin(
        order: Order,
        fresh: Fresh,
        way: Way,
        began: Instant,
    ) -> Result<Self, SessionError> {
        let mut machine = fresh.machine;
        let run = RunFolder::create(&order.places.run)?;
        let running = Arc::<Running>::default();
        let control = Control::new(fresh.control, Arc::clone(&running))?;
        let generation = fresh.generation + 1;
        let resumed =
            hygiene::resumed(generation, order.rng).map_err(|source| SessionError::Guest {
                step: "draw entropy for the guest",
                source,
            })?;
        // Whatever goes wrong before the machine has settled, the engine's own word on it comes first.
        let told = control.tell(&resumed);
        let (mut opened_us, mut process_us) = (fresh.opened_us, fresh.process_us);
        if way == Way::Bound {
            // What was done before anybody asked does not count.
            (opened_us, process_us) = (0, micros(began));
            machine.resume();
        }
        let cells = Lines::new(fresh.cells);
        machine
            .listen(&run.socket())
            .map_err(|source| SessionError::Machine {
                step: "open the machine's socket",
                source,
            })?;
        machine.settle().map_err(|source| SessionError::Machine {
            step: "restore the template",
            source,
        })?;
        told?;
        let info = Info {
            template: order.name.to_string(),
            engine: order.engine.name(),
            memory_bytes: fresh.memory_bytes,
            linux: fresh.linux,
            socket: run.socket(),
            process_id: machine.process_id(),
            way,
        };
        let times = Times {
            opened_us,
            process_us,
            linked_us: micros(began),
            ..Times::default()
        };
        Ok(Self {
            cells,
            control,
            running,
            machine,
            run,
            order,
            restored: fresh.snapshot,
            pool: None,
            info,
            times,
            next_cell: 1,
            generation,
            runner_lost: false,
            limits: fresh.limits,
            language: fresh.language,
            lasting: None,
        })
    }

    /// Runs one cell to its end and returns its answer; what it says on the way goes to `sink`.
    ///
    /// # Errors
    /// When the machine is lost or speaks nonsense. A cell that raises, runs out of time, is
    /// interrupted or takes the runner with it is an answer, not an error.
    pub fn run(&mut self, cell: &Cell, sink: &mut dyn Sink) -> Result<Answer, SessionError> {
        if self.lasting.is_some() {
            self.run_recorded(cell, sink)
        } else {
            let id = self.next_id("c");
            self.run_cell(&id, cell, sink)
        }
    }

    /// A name that no request to this guest has had: it answers one that it knows with the same words again. A
    /// checkpoint remembers what was asked before it, by whichever process; each restore is a generation of its own.
    pub(crate) fn next_id(&mut self, kind: &str) -> String {
        let number = self.next_cell;
        self.next_cell += 1;
        match self.lasting {
            None => format!("{kind}{number}"),
            Some(_) => format!("{kind}{}.{number}", self.generation),
        }
    }

    pub(crate) fn run_cell(
        &mut self,
        id: &str,
        cell: &Cell,
        sink: &mut dyn Sink,
    ) -> Result<Answer, SessionError> {
        if let Some(command) = command_of(&cell.code) {
            return self.run_command(id, &command, cell, sink);
        }
        let began = Instant::now();
        let timeout = cell.timeout.or(self.limits.time);
        let request = Request {
            show_tables: cell.show_tables,
            show_table_meta: cell.show_table_meta,
            timeout_ms: timeout.map(milliseconds),
            limits: self.limits.on_the_wire(),
            execution_count: cell.number.map(u64::from),
            filename: cell.filename.clone(),
            argv: cell.argv.clone(),
            path: cell.path.clone(),
            allow_stdin: cell.allow_input.then_some(true),
            ..Request::streamed(id, &cell.code)
        };
        self.running.check()?;
        self.running.set(Some(id.to_owned()));
        let answer = self
            .send(&request)
            .and_then(|()| self.listen(id, timeout, began, sink));
        self.running.set(None);
        self.runner_lost |= self.control.has_lost_runner().unwrap_or(false);
        if self.times.first_cell_us == 0 {
            self.times.first_cell_us = self.times.linked_us + micros(began);
        }
        answer
    }

    fn listen(
        &mut self,
        id: &str,
        timeout: Option<Duration>,
        began: Instant,
        sink: &mut dyn Sink,
    ) -> Result<Answer, SessionError> {
        self.await_resumed(began)?;
        let mut ladder = Ladder::new(timeout, began);
        loop {
            // Before each line, not only when it is quiet: a flood of output must not hold this up.
            if self.running.is_given_up() {
                let why = "the cell did not stop when it was interrupted";
                return Ok(given_up(Status::Interrupted, why));
            }
            if ladder.climb(&self.control, &self.running, id)? {
                self.running.give_up();
                return Ok(given_up(
                    Status::Timeout,
                    "the cell did not stop at its timeout",
                ));
            }
            match self.cells.next(Some(ladder.deadline()))? {
                Waited::Line(line) => match parse(&line)? {
                    Event::Done(mut answer) => {
                        self.runner_lost = is_without_runner(&answer);
                        if ladder.has_acted() && !self.runner_lost {
                            // However it ended: it would not hear of its timeout.
                            answer.status = Some(Status::Timeout);
                            answer.exit_code = answer.exit_code.max(1);
                        }
                        answer.stopped_by = stopped_by(&answer, self.runner_lost, &self.running);
                        return Ok(*answer);
                    }
                    Event::InputRequest(request) => self.give_input(id, &request, sink)?,
                    Event::Unknown => {}
                    event => sink.event(&event),
                },
                Waited::Closed => return Err(self.lost("it closed the port of cells")),
                Waited::TimedOut => {}
            }
        }
    }

    /// Waits for the acknowledgement of the resume, which comes before anything of the first cell.
    pub(crate) fn await_resumed(&mut self, began: Instant) -> Result<(), SessionError> {
        if self.times.resumed_us != 0 {
            return Ok(());
        }
        let acknowledged = self.control.wait(RESUME_DEADLINE, |reply| {
            matches!(reply, ControlReply::Resumed { .. }).then_some(())
        });
        match acknowledged {
            Ok(Some(())) => {
                self.times.resumed_us = self.times.linked_us + micros(began).max(1);
                Ok(())
            }
            Ok(None) => Err(self.slow_to_resume()),
            Err(SessionError::MachineLost { why }) => Err(self.lost(&why)),
            Err(other) => Err(other),
        }
    }

    pub(crate) fn slow_to_resume(&mut self) -> SessionError {
        SessionError::Slow {
            what: "acknowledge its resume",
            seconds: RESUME_DEADLINE.as_secs(),
            console: self.machine.condition().unwrap_or_else(|| "-".to_owned()),
        }
    }

    fn give_input(
        &mut self,
        id: &str,
        request: &crate::cell::InputRequest,
        sink: &mut dyn Sink,
    ) -> Result<(), SessionError> {
        let reply = match sink.input(request) {
            Input::Line(line) => Request::stdin(id, Some(line + "\n")),
            Input::Last(text) => Request::last_stdin(id, text),
            Input::End => Request::stdin(id, None),
            Input::Interrupt => {
                self.interrupter().interrupt();
                return Ok(());
            }
        };
        self.send(&reply)
    }

    /// What each cell may take from now on; a cell's own timeout counts before that of all.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// What each cell may take.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What its cells are written in.
    #[must_use]
    pub fn language(&self) -> Language {
        self.language
    }

    /// Refuses a session whose cells are written in another language than this.
    ///
    /// # Errors
    /// When they are.
    pub fn expect_language(&self, wanted: Language) -> Result<(), SessionError> {
        let what = format!("template {:?}", self.info().template);
        expect_language(&what, self.language.name(), wanted.name())
    }

    /// Whoever holds this can stop the running cell, from any thread.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter::new(self.control.clone(), Arc::clone(&self.running))
    }

    /// Whether cells can still run here: false when the machine was lost or given up. A session with a name outlives
    /// its machines.
    #[must_use]
    pub fn is_usable(&mut self) -> bool {
        self.lasting.is_some() || self.is_alive()
    }

    /// Whether its machine can run cells.
    pub(crate) fn is_alive(&mut self) -> bool {
        !self.running.is_given_up() && !self.runner_lost && self.machine.lost().is_none()
    }

    pub(crate) fn running(&self) -> &Arc<Running> {
        &self.running
    }

    /// What an error was really: whatever failed when the machine was given up, failed by that.
    pub(crate) fn unless_given_up(&self, error: SessionError) -> SessionError {
        self.running.check().err().unwrap_or(error)
    }

    /// Figures about the guest.
    ///
    /// # Errors
    /// When the machine is lost.
    pub fn stats(&mut self) -> Result<Stats, SessionError> {
        self.ask_control(&ControlRequest::Stats, |reply| match reply {
            ControlReply::Stats(stats) => Some(stats),
            _ => None,
        })
    }

    pub(crate) fn ask_control<T>(
        &mut self,
        request: &ControlRequest,
        take: impl FnMut(ControlReply) -> Option<T>,
    ) -> Result<T, SessionError> {
        // One question at a time: the last checkpoint's may be under way.
        self.stand_up()?;
        self.await_resumed(Instant::now())?;
        self.control.ask(request, take)
    }

    /// What this session is.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// How long the phases took.
    #[must_use]
    pub fn times(&self) -> Times {
        self.times
    }

    /// A stream to a guest port.
    ///
    /// # Errors
    /// When the machine is lost.
    pub fn connect(&self, port: u32) -> Result<std::os::unix::net::UnixStream, SessionError> {
        self.machine
            .connect(port)
            .map_err(|source| SessionError::Machine {
                step: "reach a guest port",
                source,
            })
    }

    /// Keeps machines ready for [`Session::restart`], from now on and in the background.
    pub fn keep_ready(&mut self, size: PoolSize) {
        self.pool = Some(Pool::start(self.order.clone(), size));
    }

    /// Waits until all machines that are to be kept ready are. False when they are not in time, or never.
    #[must_use]
    pub fn wait_ready(&self, patience: Duration) -> bool {
        self.pool
            .as_ref()
            .is_some_and(|pool| pool.wait_full(patience))
    }

    /// A fresh restore of the same template in place of this one.
    ///
    /// # Errors
    /// As [`Session::restore`]; this session is then gone, too.
    pub fn restart(mut self) -> Result<Self, SessionError> {
        let began = Instant::now();
        let (order, pool) = (self.order.clone(), self.pool.take());
        let Some(pool) = pool else {
            let limits = self.limits;
            drop(self);
            let fresh = order.fill(None, Begin::Running)?;
            let mut session = Self::begin(order, fresh, Way::Nothing, began)?;
            session.limits = limits;
            return Ok(session);
        };
        let (fresh, way) = pool.take()?;
        let mut session = Self::begin(order, fresh, way, began)?;
        session.pool = Some(pool);
        session.limits = self.limits;
        // KVM takes milliseconds to clear a machine away. Without a thread for it, they are waited for.
        std::thread::Builder::new().spawn(move || drop(self)).ok();
        Ok(session)
    }

    /// Ends the session and its machine, for a process that ends, too: it need not wait until all of the machine is
    /// cleared away.
    ///
    /// # Errors
    /// When the last cell's checkpoint could not be stored.
    pub fn leave(mut self) -> Result<(), SessionError> {
        let stored = match &self.lasting {
            Some(lasting) if lasting.unstored => self.store_now(),
            _ => Ok(()),
        };
        let Self {
            machine, lasting, ..
        } = self;
        match lasting {
            Some(lasting) => stored.and(lasting.leave(machine)),
            None => {
                machine.leave();
                Ok(())
            }
        }
    }

    pub(crate) fn send(&mut self, request: &Request) -> Result<(), SessionError> {
        match self.cells.send(&request.to_line(), &self.running) {
            Err(SessionError::Guest { source, .. }) => {
                let why = source.to_string();
                Err(self.lost(&why))
            }
            sent => sent,
        }
    }

    pub(crate) fn lost(&mut self, otherwise: &str) -> SessionError {
        let why = self.machine.lost().unwrap_or_else(|| otherwise.to_owned());
        SessionError::MachineLost { why }
    }

    /// The machine's private folder.
    #[must_use]
    pub fn run_folder(&self) -> &RunFolder {
        &self.run
    }
}

/// Whether the guest's agent answered in the runner's place: the runner is gone, and all names with it.
fn is_without_runner(answer: &Answer) -> bool {
    const NOT_THE_CODES: i32 = 2;
    match answer.status {
        Some(Status::RunnerLost | Status::MachineLost | Status::MemoryExceeded) => true,
        Some(Status::Timeout | Status::OutputExceeded) => answer.exit_code == NOT_THE_CODES,
        _ => false,
    }
}

/// Whether an answer says that nothing of its cell is left.
pub(crate) fn is_of_a_lost_runner(answer: &Answer) -> bool {
    is_without_runner(answer) || answer.stopped_by == Some(StoppedBy::Rollback)
}

fn stopped_by(answer: &Answer, is_lost: bool, running: &Running) -> Option<StoppedBy> {
    match answer.status {
        Some(Status::Timeout | Status::OutputExceeded) if is_lost => Some(StoppedBy::Rollback),
        Some(Status::Timeout | Status::OutputExceeded | Status::Interrupted) => {
            Some(running.highest_step())
        }
        _ => None,
    }
}

/// The answer of a cell whose machine is given up.
fn given_up(status: Status, why: &str) -> Answer {
    Answer {
        exit_code: 1,
        status: Some(status),
        error: Some(format!("{why}; its machine was given up")),
        stopped_by: Some(StoppedBy::Rollback),
        ..Answer::default()
    }
}
