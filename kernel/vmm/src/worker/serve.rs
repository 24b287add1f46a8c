//! The worker: a process that runs one machine and does what its parent says.
//!
//! It ends with its parent: the socket between them closes, whatever the parent died of.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use kvm_ioctls::Kvm;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, SendFlags};

use crate::limits::STATE_BYTES;
use crate::machine::{Machine, MachineError};
use crate::parts::{BootFiles, EmptyMachine, Parts, Purpose, Saved};
use crate::phases::{Phases, now_ns};
use crate::shell::ShellError;
use crate::vsock::Greeting;
use crate::worker::jail;
use crate::worker::message::{Heard, Order, Report, receive, send};

/// Runs a worker on its end of the socket to its parent. Returns when the parent is gone.
#[must_use]
pub fn work(socket: OwnedFd) -> ExitCode {
    let mut phases = Phases {
        started_ns: now_ns(),
        ..Phases::default()
    };
    // What `ps` and `top` show. A worker that keeps its old name works as well.
    rustix::thread::set_name(c"vmrepl-machine").ok();
    die_by_any_panic();
    // Before the first byte of a guest or a snapshot is looked at.
    if let Err(error) = jail::enter() {
        let chain = vec!["could not enter the jail".to_owned(), error.to_string()];
        drop(send(
            socket.as_fd(),
            &Report::Failed { chain },
            &[],
            SendFlags::empty(),
        ));
        return ExitCode::FAILURE;
    }
    phases.jailed_ns = now_ns();
    let mut worker = Worker {
        phases,
        socket,
        empty: None,
        live: None,
        told_end: false,
    };
    match worker.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A thread that panics takes the process along, and the parent reads why: else the others would wait for it.
fn die_by_any_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        std::process::abort();
    }));
}

#[derive(Debug)]
struct Worker {
    phases: Phases,
    socket: OwnedFd,
    /// What was built ahead.
    empty: Option<EmptyMachine>,
    live: Option<Live>,
    told_end: bool,
}

/// How a machine is to be restored.
#[derive(Debug)]
struct Wanted {
    state_bytes: u64,
    laid_pages: u64,
    purpose: Purpose,
    run: bool,
}

/// The machine and the files that it shares with the parent.
#[derive(Debug)]
struct Live {
    machine: Machine,
    saved: File,
}

impl Worker {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let (orders, sockets, ended) = self.wait()?;
            if let Some(live) = &mut self.live {
                if sockets {
                    live.machine.serve_sockets();
                }
                if ended && !self.told_end {
                    self.told_end = true;
                    // The processors that did not end the machine leave it now.
                    live.machine.rest();
                    let why = live.machine.end().map_or_else(
                        || "for no reason that it gave".to_owned(),
                        |end| end.to_string(),
                    );
                    self.report(&Report::Ended { why })?;
                    // After the reason: whoever waits on a stream wakes now, and asks for it.
                    if let Some(live) = &self.live {
                        live.machine.close_streams();
                    }
                }
            }
            if orders && !self.take_order()? {
                return Ok(());
            }
        }
    }

    /// Waits for an order, a socket of a stream, or the machine's end. While the machine rests, nothing of it
    /// changes: its streams wait.
    fn wait(&self) -> io::Result<(bool, bool, bool)> {
        let nothing = PollFlags::empty();
        let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
        if let Some(live) = &self.live {
            let unless = |quiet: bool| if quiet { nothing } else { PollFlags::IN };
            let (sockets, ended) = (live.machine.sockets(), live.machine.ended());
            let rests = live.machine.rests();
            fds.push(PollFd::from_borrowed_fd(sockets, unless(rests)));
            fds.push(PollFd::from_borrowed_fd(ended, unless(self.told_end)));
        }
        loop {
            match poll(&mut fds, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok((ready(0), ready(1), ready(2)))
    }

    /// Does one order; false when the parent is gone.
    fn take_order(&mut self) -> io::Result<bool> {
        let Heard::Message(order, descriptors) =
            receive::<Order>(&self.socket, RecvFlags::empty())?
        else {
            return Ok(false);
        };
        let is_answered = !matches!(order, Order::Open { .. });
        let lets_run = matches!(order, Order::Run);
        match self.obey(order, descriptors) {
            Ok(report) if is_answered => self.report(&report)?,
            Ok(_) => {}
            Err(failure) => self.report(&Report::Failed {
                chain: failure.chain(),
            })?,
        }
        // While the guest runs: nobody waits for it.
        if let Some(live) = self.live.as_mut().filter(|_| lets_run) {
            live.machine.forget_old_marks();
        }
        Ok(true)
    }

    fn report(&self, report: &Report) -> io::Result<()> {
        send(self.socket.as_fd(), report, &[], SendFlags::empty())
    }

    fn obey(&mut self, order: Order, descriptors: Vec<OwnedFd>) -> Result<Report, Failure> {
        let mut given = Given(descriptors.into_iter());
        match order {
            Order::Boot {
                memory_bytes,
                vcpus,
                command_line,
            } => self.boot(memory_bytes, vcpus, &command_line, &mut given)?,
            Order::Prepare {
                memory_bytes,
                vcpus,
                purpose,
            } => {
                let kvm = crate::machine::kvm_from(given.next()?);
                self.empty = Some(EmptyMachine::build(&kvm, memory_bytes, vcpus, purpose)?);
                self.phases.built_ns = now_ns();
            }
            Order::Restore {
                state_bytes,
                laid_pages,
                claims,
                purpose,
                run,
            } => {
                let wanted = Wanted {
                    state_bytes,
                    laid_pages,
                    purpose,
                    run,
                };
                self.restore(&wanted, claims, &mut given)?;
                return Ok(Report::Restored(self.phases));
            }
            Order::Open {
                port,
                answer,
                early,
            } => {
                let socket = UnixStream::from(given.next()?);
                self.live()?
                    .machine
                    .open(port, socket, Greeting { early, answer });
            }
            Order::Run => self.live()?.machine.run()?,
            Order::Rest => self.live()?.machine.rest(),
            Order::WriteBase => self.live()?.machine.write_base()?,
            Order::Save => {
                let live = self.live()?;
                let state = live.machine.save()?;
                return Ok(Report::Saved {
                    bytes: live.hand_over(&state)?,
                });
            }
            Order::Freeze => return self.live()?.freeze(&given.file()?),
            Order::RollBack { mark } => {
                let mark = usize::try_from(mark).unwrap_or(usize::MAX);
                let pages = self.live()?.machine.roll_back(mark)?;
                let pages = pages as u64;
                return Ok(Report::RolledBack { pages });
            }
            Order::Condition => {
                return Ok(Report::Condition(self.live()?.machine.condition()?));
            }
            Order::Sum => return Ok(Report::Sum(self.live()?.machine.sum()?)),
        }
        Ok(Report::Done)
    }

    fn live(&mut self) -> Result<&mut Live, Failure> {
        self.live
            .as_mut()
            .ok_or(Failure::Order("there is no machine yet"))
    }

    fn boot(
        &mut self,
        memory_bytes: u64,
        vcpus: u8,
        command_line: &str,
        given: &mut Given,
    ) -> Result<(), Failure> {
        let (kvm, parts, saved) = given.parts()?;
        let (vmlinux, initramfs) = (given.file()?, given.file()?);
        let files = BootFiles {
            vmlinux: &vmlinux,
            initramfs: &initramfs,
            command_line,
        };
        let mut machine = Machine::boot(&kvm, memory_bytes, vcpus, parts, &files)?;
        machine.run()?;
        self.live = Some(Live { machine, saved });
        Ok(())
    }

    fn restore(
        &mut self,
        wanted: &Wanted,
        claims: Vec<u32>,
        given: &mut Given,
    ) -> Result<(), Failure> {
        let (kvm, parts, saved) = given.parts()?;
        let laid = given.file()?;
        let claims = claims
            .into_iter()
            .map(|port| Ok((port, UnixStream::from(given.next()?))))
            .collect::<Result<_, Failure>>()?;
        let bytes = read_state(&saved).map_err(Failure::io("read the state"))?;
        let (state, hot) = usize::try_from(wanted.state_bytes)
            .ok()
            .and_then(|count| bytes.split_at_checked(count))
            .ok_or(Failure::Order("the state is shorter than was said"))?;
        let saved_state = Saved {
            state,
            laid: &laid,
            laid_pages: wanted.laid_pages,
            hot,
            purpose: wanted.purpose,
        };
        self.phases.ordered_ns = now_ns();
        let empty = self.empty.take();
        let phases = &mut self.phases;
        let mut machine = Machine::restore(&kvm, empty, &saved_state, parts, claims, phases)?;
        if wanted.run {
            machine.run()?;
        }
        self.phases.run_ns = now_ns();
        self.live = Some(Live { machine, saved });
        Ok(())
    }
}

impl Live {
    fn freeze(&mut self, slab: &File) -> Result<Report, Failure> {
        let (state, frozen) = self.machine.freeze(slab)?;
        Ok(Report::Frozen {
            bytes: self.hand_over(&state)?,
            mark: frozen.mark as u64,
            pages: frozen.pages as u64,
        })
    }

    /// Writes a state into the file that the parent reads, and returns its length.
    fn hand_over(&self, state: &[u8]) -> Result<u64, Failure> {
        let write = |file: &File| {
            file.set_len(state.len() as u64)?;
            file.write_all_at(state, 0)
        };
        write(&self.saved).map_err(Failure::io("hand the state over"))?;
        Ok(state.len() as u64)
    }
}

fn read_state(file: &File) -> io::Result<Vec<u8>> {
    let bytes = crate::mapping::length(file)?;
    if bytes > STATE_BYTES as u64 {
        return Err(io::Error::other(format!(
            "it has {bytes} bytes, the limit is {STATE_BYTES}"
        )));
    }
    let mut state = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut state, 0)?;
    Ok(state)
}

/// The descriptors of an order, in their order.
struct Given(std::vec::IntoIter<OwnedFd>);

impl Given {
    fn next(&mut self) -> Result<OwnedFd, Failure> {
        self.0
            .next()
            .ok_or(Failure::Order("a descriptor is missing"))
    }

    fn file(&mut self) -> Result<File, Failure> {
        self.next().map(File::from)
    }

    /// What every machine is made of, in the order of the messages.
    fn parts(&mut self) -> Result<(Kvm, Parts, File), Failure> {
        let kvm = crate::machine::kvm_from(self.next()?);
        let parts = Parts {
            memory: self.file()?,
            root: self.file()?,
            console: self.file()?,
        };
        Ok((kvm, parts, self.file()?))
    }
}

/// Why an order was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the order cannot be done: {0}")]
    Order(&'static str),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Empty(#[from] ShellError),
    #[error("could not {step}")]
    Io {
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

impl Failure {
    fn io(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { step, source }
    }

    fn chain(&self) -> Vec<String> {
        let mut chain = Vec::new();
        let mut next: Option<&dyn std::error::Error> = Some(self);
        while let Some(error) = next {
            chain.push(error.to_string());
            next = error.source();
        }
        chain
    }
}
