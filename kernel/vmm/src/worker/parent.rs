//! A worker as its parent sees it: started, told, listened to, ended.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};

use crate::limits::{CONSOLE_BYTES, PAGE_BYTES, SLOW_BYTES_PER_SECOND, STATE_BYTES, WORKER_ANSWER};
use crate::marks;
use crate::phases::Phases;
use crate::worker::changed::Changed;
use crate::worker::error::WorkerError;
use crate::worker::message::{Heard, Order, Report, receive, send};
use crate::worker::parts::{Boot, Config, Program, memory_backed, open, open_kvm, open_read};

/// What a worker may say unasked before it is not believed any more.
const UNASKED_MAX: usize = 16;

/// A worker with its machine. Killed and reaped on drop.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    socket: OwnedFd,
    pub(crate) saved: File,
    console: File,
    errors: File,
    /// Of its machine, once it has one.
    pub(crate) memory_bytes: u64,
    pub(crate) phases: Phases,
    /// Answers of the restore that nobody has waited for yet.
    pub(crate) owed: usize,
    /// Why the machine has ended by itself, once the worker has said it.
    ended: Option<String>,
    /// It was killed, and nobody waits for it.
    is_left: bool,
}

impl Worker {
    /// Boots a Linux. It runs when this returns. The memory file becomes a base by [`Worker::write_base`].
    ///
    /// # Errors
    /// When a file or KVM cannot be opened, or the worker refuses.
    pub fn boot(program: &Program, config: &Config, boot: &Boot) -> Result<Self, WorkerError> {
        let writable = File::options().read(true).write(true).clone();
        let given = [
            open_kvm()?,
            open(&config.memory_file, &writable)?,
            open_read(&config.root)?,
        ];
        let files = [open_read(&boot.vmlinux)?, open_read(&boot.initramfs)?];
        let mut worker = Self::start(program)?;
        worker.memory_bytes = config.memory_bytes;
        let order = Order::Boot {
            memory_bytes: config.memory_bytes,
            vcpus: config.vcpus,
            command_line: boot.command_line.clone(),
        };
        let rest: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        worker.tell_with_parts(&order, &given, &rest)?;
        worker.done()?;
        Ok(worker)
    }

    /// Waits until the machine is restored, if it is not known yet. It then runs, or rests, as was asked for.
    ///
    /// # Errors
    /// When the worker is gone or refuses the state.
    pub fn settle(&mut self) -> Result<(), WorkerError> {
        while self.owed > 0 {
            let answer = self.answer()?;
            self.take_owed(&answer)?;
        }
        Ok(())
    }

    fn take_owed(&mut self, answer: &Report) -> Result<(), WorkerError> {
        self.owed -= 1;
        match answer {
            Report::Restored(phases) => {
                self.phases = Phases {
                    begun_ns: self.phases.begun_ns,
                    spawned_ns: self.phases.spawned_ns,
                    asked_ns: self.phases.asked_ns,
                    ..*phases
                };
                Ok(())
            }
            // It had been told to prepare.
            Report::Done if self.owed > 0 => Ok(()),
            _ => Err(WorkerError::Answer),
        }
    }

    /// When the parts of the restore were done, once it has settled.
    #[must_use]
    pub fn phases(&self) -> Phases {
        self.phases
    }

    pub(crate) fn start(program: &Program) -> Result<Self, WorkerError> {
        let make = WorkerError::Descriptors;
        let (socket, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| make(errno.into()))?;
        let saved = memory_backed("vmrepl-saved").map_err(make)?;
        let console = memory_backed("vmrepl-console").map_err(make)?;
        let errors = memory_backed("vmrepl-stderr").map_err(make)?;
        let child = Command::new(&program.path)
            .arg0("vmrepl-machine")
            .args(&program.arguments)
            .env_clear()
            .current_dir("/")
            // A terminal's Ctrl-C is for the cell, not for the machine.
            .process_group(0)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(errors.try_clone().map_err(make)?)
            .spawn()
            .map_err(|source| WorkerError::Spawn {
                path: program.path.clone(),
                source,
            })?;
        Ok(Self {
            child,
            socket,
            saved,
            console,
            errors,
            memory_bytes: 0,
            phases: Phases::default(),
            owed: 0,
            ended: None,
            is_left: false,
        })
    }

    pub(crate) fn tell_with_parts(
        &self,
        order: &Order,
        given: &[File; 3],
        rest: &[BorrowedFd<'_>],
    ) -> Result<(), WorkerError> {
        let mut descriptors: Vec<BorrowedFd<'_>> = given.iter().map(AsFd::as_fd).collect();
        descriptors.extend([&self.console, &self.saved].map(AsFd::as_fd));
        descriptors.extend(rest);
        self.tell(order, &descriptors)
    }

    pub(crate) fn tell(
        &self,
        order: &Order,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), WorkerError> {
        send(self.socket.as_fd(), order, descriptors, SendFlags::DONTWAIT).map_err(|source| {
            match source.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => self.gone(),
                io::ErrorKind::WouldBlock => WorkerError::Deaf,
                _ => WorkerError::Speak(source),
            }
        })
    }

    /// Waits for the answer to an order.
    pub(crate) fn answer(&mut self) -> Result<Report, WorkerError> {
        self.answer_within(WORKER_ANSWER)
    }

    /// Waits for the answer to an order that moves much of memory.
    fn slow_answer(&mut self) -> Result<Report, WorkerError> {
        let seconds = self.memory_bytes / SLOW_BYTES_PER_SECOND;
        self.answer_within(WORKER_ANSWER + Duration::from_secs(seconds))
    }

    fn answer_within(&mut self, patience: Duration) -> Result<Report, WorkerError> {
        for _ in 0..UNASKED_MAX {
            self.wait(patience)?;
            match receive(&self.socket, RecvFlags::DONTWAIT).map_err(WorkerError::Speak)? {
                Heard::Closed => return Err(self.gone()),
                Heard::Message(Report::Ended { why }, _) => self.ended = Some(why),
                Heard::Message(Report::Failed { chain }, _) => {
                    return Err(WorkerError::Refused { chain });
                }
                Heard::Message(report, _) => return Ok(report),
            }
        }
        Err(WorkerError::Answer)
    }

    /// Waits until the worker says something. One that does not is of no use any more, and is ended.
    fn wait(&mut self, patience: Duration) -> Result<(), WorkerError> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|_| WorkerError::Answer)?;
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut fds, Some(&left)) {
                Ok(0) => {
                    self.kill();
                    let seconds = patience.as_secs();
                    return Err(WorkerError::Silent { seconds });
                }
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(WorkerError::Speak(errno.into())),
            }
        }
    }

    pub(crate) fn done(&mut self) -> Result<(), WorkerError> {
        match self.answer()? {
            Report::Done => Ok(()),
            _ => Err(WorkerError::Answer),
        }
    }

    fn order(&mut self, order: &Order) -> Result<Report, WorkerError> {
        self.settle()?;
        self.tell(order, &[])?;
        self.answer()
    }

    fn slow_order(&mut self, order: &Order) -> Result<Report, WorkerError> {
        self.settle()?;
        self.tell(order, &[])?;
        self.slow_answer()
    }

    fn gone(&self) -> WorkerError {
        WorkerError::Ended { said: self.said() }
    }

    /// A handle by which any thread can open streams.
    ///
    /// # Errors
    /// When there is no descriptor for it.
    pub fn opener(&self) -> Result<Opener, WorkerError> {
        let socket = self.socket.try_clone().map_err(WorkerError::Descriptors)?;
        Ok(Opener { socket })
    }

    /// Brings the guest to rest.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn rest(&mut self) -> Result<(), WorkerError> {
        match self.order(&Order::Rest)? {
            Report::Done => Ok(()),
            _ => Err(WorkerError::Answer),
        }
    }

    /// Lets the guest run.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn run(&mut self) -> Result<(), WorkerError> {
        match self.order(&Order::Run)? {
            Report::Done => Ok(()),
            _ => Err(WorkerError::Answer),
        }
    }

    /// Writes the memory of a resting machine that was booted into its memory file.
    ///
    /// # Errors
    /// When the worker is gone or the file cannot be written.
    pub fn write_base(&mut self) -> Result<(), WorkerError> {
        match self.slow_order(&Order::WriteBase)? {
            Report::Done => Ok(()),
            _ => Err(WorkerError::Answer),
        }
    }

    /// The state of everything but memory of a resting machine. About 16 KB.
    ///
    /// # Errors
    /// When the worker is gone or KVM does not give the state.
    pub fn save_state(&mut self) -> Result<Vec<u8>, WorkerError> {
        match self.order(&Order::Save)? {
            Report::Saved { bytes } => self.read_saved(bytes),
            _ => Err(WorkerError::Answer),
        }
    }

    fn read_saved(&self, bytes: u64) -> Result<Vec<u8>, WorkerError> {
        let count = usize::try_from(bytes)
            .ok()
            .filter(|count| *count <= STATE_BYTES)
            .ok_or(WorkerError::State { bytes })?;
        let mut state = vec![0; count];
        self.saved
            .read_exact_at(&mut state, 0)
            .map_err(WorkerError::Read)?;
        Ok(state)
    }

    /// Freezes a resting machine: its state, and the pages that have changed since the freeze before or the
    /// restore.
    ///
    /// # Errors
    /// When the worker is gone, the machine was booted, or KVM does not give its state.
    pub fn freeze(&mut self) -> Result<(Vec<u8>, Changed), WorkerError> {
        self.settle()?;
        let file = memory_backed("vmrepl-pages").map_err(WorkerError::Descriptors)?;
        self.tell(&Order::Freeze, &[file.as_fd()])?;
        let Report::Frozen { bytes, mark, pages } = self.slow_answer()? else {
            return Err(WorkerError::Answer);
        };
        let state = self.read_saved(bytes)?;
        let limit = self.memory_bytes / PAGE_BYTES as u64;
        let indices = marks::indices(&file, pages, limit).map_err(WorkerError::Read)?;
        let changed = Changed {
            mark,
            indices,
            contents: file,
        };
        Ok((state, changed))
    }

    /// Brings a resting machine back to a moment that it was frozen at, or restored from (0). Returns how
    /// many pages were copied back.
    ///
    /// # Errors
    /// When the worker is gone or there is no such moment.
    pub fn roll_back(&mut self, mark: u64) -> Result<u64, WorkerError> {
        match self.slow_order(&Order::RollBack { mark })? {
            Report::RolledBack { pages } => Ok(pages),
            _ => Err(WorkerError::Answer),
        }
    }

    /// Where a resting machine stands, in words.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn condition(&mut self) -> Result<String, WorkerError> {
        match self.order(&Order::Condition)? {
            Report::Condition(words) => Ok(words),
            _ => Err(WorkerError::Answer),
        }
    }

    /// A BLAKE3 sum of all memory of a resting machine.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn sum(&mut self) -> Result<[u8; 32], WorkerError> {
        match self.slow_order(&Order::Sum)? {
            Report::Sum(sum) => Ok(sum),
            _ => Err(WorkerError::Answer),
        }
    }

    /// Why the machine or its worker has ended; `None` while it lives.
    pub fn ended(&mut self) -> Option<String> {
        for _ in 0..UNASKED_MAX {
            if self.ended.is_some() {
                break;
            }
            match receive(&self.socket, RecvFlags::DONTWAIT) {
                Ok(Heard::Message(Report::Ended { why }, _)) => self.ended = Some(why),
                Ok(Heard::Message(Report::Failed { chain }, _)) => {
                    self.ended = Some(chain.join(": "));
                }
                Ok(Heard::Message(answer, _)) if self.owed > 0 => {
                    if let Err(error) = self.take_owed(&answer) {
                        self.ended = Some(error.to_string());
                    }
                }
                // An answer that nobody waits for any more.
                Ok(Heard::Message(..)) => {}
                Ok(Heard::Closed) => self.ended = Some(self.gone().to_string()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => self.ended = Some(error.to_string()),
            }
        }
        self.ended.clone()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of what the worker wrote to its stderr: nothing, unless it died of its own fault.
    #[must_use]
    pub fn said(&self) -> String {
        tail(&self.errors)
    }

    /// The end of what the guest wrote to its console while it booted.
    #[must_use]
    pub fn console(&self) -> String {
        tail(&self.console)
    }

    /// Ends a worker that is of no use any more, for a reason that whoever asks later is told.
    pub fn give_up(&mut self, why: &WorkerError) {
        self.kill();
        let why = chain_of(why);
        self.ended.get_or_insert(why);
    }

    /// Ends the process now and waits for it.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }

    /// Ends the process and does not wait for it: for a parent that ends, too. KVM takes milliseconds to clear a
    /// machine away.
    pub fn leave(mut self) {
        drop(self.child.kill());
        self.is_left = true;
    }
}

/// An error and its causes as one line.
fn chain_of(error: &WorkerError) -> String {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        said = format!("{said}: {inner}");
        cause = inner.source();
    }
    said
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.is_left {
            self.kill();
        }
    }
}

/// Opens streams to guest ports.
#[derive(Debug)]
pub struct Opener {
    socket: OwnedFd,
}

impl Opener {
    /// Opens a stream to a guest port for `socket`. `early` goes to the guest first; with `answer`, the
    /// socket gets `OK <number>` when the guest accepts. A refusal closes the socket.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn open(
        &self,
        port: u32,
        socket: &UnixStream,
        answer: bool,
        early: Vec<u8>,
    ) -> io::Result<()> {
        let order = Order::Open {
            port,
            answer,
            early,
        };
        send(
            self.socket.as_fd(),
            &order,
            &[socket.as_fd()],
            SendFlags::DONTWAIT,
        )
    }
}

fn tail(file: &File) -> String {
    let length = file.metadata().map_or(0, |facts| facts.len());
    let from = length.saturating_sub(CONSOLE_BYTES as u64);
    let mut bytes = vec![0; usize::try_from(length - from).unwrap_or(0)];
    match file.read_exact_at(&mut bytes, from) {
        Ok(()) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(error) => format!("(nothing could be read: {error})"),
    }
}
