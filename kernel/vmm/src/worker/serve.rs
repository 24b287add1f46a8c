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
use rustix::net::RecvFlags;

use crate::limits::{PAGE_BYTES, STATE_BYTES};
use crate::machine::{BootFiles, Machine, MachineError, Parts};
use crate::vsock::Greeting;
use crate::worker::jail;
use crate::worker::message::{Heard, Order, Report, receive, send};
use crate::worker::pages;

/// Runs a worker on its end of the socket to its parent. Returns when the parent is gone.
#[must_use]
pub fn work(socket: OwnedFd) -> ExitCode {
    // Before the first byte of a guest or a snapshot is looked at.
    if let Err(error) = jail::enter() {
        let chain = vec!["could not enter the jail".to_owned(), error.to_string()];
        drop(send(socket.as_fd(), &Report::Failed { chain }, &[]));
        return ExitCode::FAILURE;
    }
    let mut worker = Worker {
        socket,
        live: None,
        told_end: false,
    };
    match worker.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[derive(Debug)]
struct Worker {
    socket: OwnedFd,
    live: Option<Live>,
    told_end: bool,
}

/// The machine and the files that it shares with the parent.
#[derive(Debug)]
struct Live {
    machine: Machine,
    saved: File,
    pages: File,
}

impl Worker {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let (orders, sockets, ended) = self.wait()?;
            if let Some(live) = &self.live {
                if sockets {
                    live.machine.serve_sockets();
                }
                if ended && !self.told_end {
                    self.told_end = true;
                    let why = live.machine.end().map_or_else(
                        || "for no reason that it gave".to_owned(),
                        |end| end.to_string(),
                    );
                    self.report(&Report::Ended { why })?;
                }
            }
            if orders && !self.take_order()? {
                return Ok(());
            }
        }
    }

    /// Waits for an order, a socket of a stream, or the machine's end.
    fn wait(&self) -> io::Result<(bool, bool, bool)> {
        let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
        let (sockets, ended);
        if let Some(live) = &self.live {
            (sockets, ended) = (live.machine.sockets(), live.machine.ended());
            fds.push(PollFd::from_borrowed_fd(sockets, PollFlags::IN));
            if !self.told_end {
                fds.push(PollFd::from_borrowed_fd(ended, PollFlags::IN));
            }
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
        match self.obey(order, descriptors) {
            Ok(report) if is_answered => self.report(&report)?,
            Ok(_) => {}
            Err(failure) => self.report(&Report::Failed {
                chain: failure.chain(),
            })?,
        }
        Ok(true)
    }

    fn report(&self, report: &Report) -> io::Result<()> {
        send(self.socket.as_fd(), report, &[])
    }

    fn obey(&mut self, order: Order, descriptors: Vec<OwnedFd>) -> Result<Report, Failure> {
        let mut given = Given(descriptors.into_iter());
        match order {
            Order::Boot {
                memory_bytes,
                vcpus,
                command_line,
            } => self.boot(memory_bytes, vcpus, &command_line, &mut given)?,
            Order::Restore { laid_pages, claims } => {
                self.restore(laid_pages, claims, &mut given)?;
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
            Order::Run => self.live()?.machine.run(),
            Order::Rest => self.live()?.machine.rest(),
            Order::Save => {
                let live = self.live()?;
                let state = live.machine.save()?;
                let write = |file: &File| {
                    file.set_len(state.len() as u64)?;
                    file.write_all_at(&state, 0)
                };
                write(&live.saved).map_err(Failure::io("hand the state over"))?;
                return Ok(Report::Saved {
                    bytes: state.len() as u64,
                });
            }
            Order::Pages => {
                let live = self.live()?;
                let count = live.give_pages()?;
                return Ok(Report::Pages { count });
            }
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
        let (kvm, parts, saved, pages) = given.parts()?;
        let (vmlinux, initramfs) = (given.file()?, given.file()?);
        let files = BootFiles {
            vmlinux: &vmlinux,
            initramfs: &initramfs,
            command_line,
        };
        let mut machine = Machine::boot(&kvm, memory_bytes, vcpus, parts, &files)?;
        machine.run();
        self.live = Some(Live {
            machine,
            saved,
            pages,
        });
        Ok(())
    }

    fn restore(
        &mut self,
        laid_pages: u64,
        claims: Vec<u32>,
        given: &mut Given,
    ) -> Result<(), Failure> {
        let (kvm, parts, saved, pages_file) = given.parts()?;
        let claims = claims
            .into_iter()
            .map(|port| Ok((port, UnixStream::from(given.next()?))))
            .collect::<Result<_, Failure>>()?;
        let state = read_state(&saved).map_err(Failure::io("read the state"))?;
        let read = Failure::io("read the pages");
        let limit = parts.memory.metadata().map_err(&read)?.len() / PAGE_BYTES as u64;
        let indices = pages::indices(&pages_file, laid_pages, limit).map_err(&read)?;
        let mut machine = Machine::restore(&kvm, &state, parts, claims)?;
        let mut page = [0; PAGE_BYTES];
        for (place, index) in indices.into_iter().enumerate() {
            pages::read(&pages_file, place, &mut page).map_err(&read)?;
            machine.lay(index, &page)?;
        }
        machine.run();
        self.live = Some(Live {
            machine,
            saved,
            pages: pages_file,
        });
        Ok(())
    }
}

impl Live {
    /// Hands over all pages that were written since the restore.
    fn give_pages(&mut self) -> Result<u64, Failure> {
        let Self { machine, pages, .. } = self;
        let written = machine.written_pages()?;
        let mut page = [0; PAGE_BYTES];
        let each = written.into_iter().map(|index| {
            machine.read_page(index, &mut page)?;
            Ok::<_, Failure>((index, page))
        });
        pages::write(pages, each)
    }
}

fn read_state(file: &File) -> io::Result<Vec<u8>> {
    let bytes = file.metadata()?.len();
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
    fn parts(&mut self) -> Result<(Kvm, Parts, File, File), Failure> {
        let kvm = crate::machine::kvm_from(self.next()?);
        let parts = Parts {
            memory: self.file()?,
            root: self.file()?,
            console: self.file()?,
        };
        Ok((kvm, parts, self.file()?, self.file()?))
    }
}

/// Why an order was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the order cannot be done: {0}")]
    Order(&'static str),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("could not hand the pages over")]
    Pages(#[from] io::Error),
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
