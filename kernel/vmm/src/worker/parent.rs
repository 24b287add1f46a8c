//! A worker as its parent sees it: started, told, listened to, ended.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::MemfdFlags;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};

use crate::limits::{CONSOLE_BYTES, PAGE_BYTES, STATE_BYTES};
use crate::worker::message::{Heard, Order, Report, receive, send};
use crate::worker::pages;

/// The content of one page.
pub type Page = [u8; PAGE_BYTES];

/// What can go wrong with a worker.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("could not open {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not make the socket and files of a worker")]
    Descriptors(#[source] io::Error),
    #[error("could not start {path}")]
    Spawn {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not speak with the worker")]
    Speak(#[source] io::Error),
    #[error("the worker ended{}", of(said))]
    Ended { said: String },
    #[error("{}", chain.join(": "))]
    Refused { chain: Vec<String> },
    #[error("the worker answered what it was not asked")]
    Answer,
    #[error("the worker handed over {bytes} bytes of state, the limit is {STATE_BYTES}")]
    State { bytes: u64 },
    #[error("could not read what the worker handed over")]
    Read(#[source] io::Error),
}

fn of(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}

/// The program that a worker is: it must call [`crate::work`] with its standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// Guest memory in bytes; the size of `memory_file`.
    pub memory_bytes: u64,
    /// Number of virtual processors.
    pub vcpus: u8,
    /// The file behind guest memory: written to when booting, mapped private when restoring.
    pub memory_file: PathBuf,
    /// The read-only disk image.
    pub root: PathBuf,
}

/// What a first boot needs beside the machine.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Uncompressed ELF with a PVH entry.
    pub vmlinux: PathBuf,
    /// The initial RAM file system.
    pub initramfs: PathBuf,
    /// Linux's command line.
    pub command_line: String,
}

/// A worker with its machine. Killed and reaped on drop.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    socket: OwnedFd,
    saved: File,
    pages: File,
    console: File,
    errors: File,
    memory_bytes: u64,
    /// Why the machine has ended by itself, once the worker has said it.
    ended: Option<String>,
}

impl Worker {
    /// Boots a Linux with the memory file shared, so that the file becomes a base. It runs when this
    /// returns.
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
        let mut worker = Self::start(program, config.memory_bytes)?;
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

    /// Restores a machine from its memory file, its saved state and the pages over the file. Sockets of
    /// `claims` become streams to their guest ports. It runs when this returns.
    ///
    /// # Errors
    /// When a file or KVM cannot be opened, or the worker refuses the state.
    pub fn restore<'a>(
        program: &Program,
        config: &Config,
        state: &[u8],
        laid: impl Iterator<Item = (u64, &'a Page)>,
        claims: &[(u32, UnixStream)],
    ) -> Result<Self, WorkerError> {
        let given = [
            open_kvm()?,
            open_read(&config.memory_file)?,
            open_read(&config.root)?,
        ];
        let mut worker = Self::start(program, config.memory_bytes)?;
        worker
            .saved
            .write_all_at(state, 0)
            .map_err(WorkerError::Descriptors)?;
        let laid = laid.map(|(index, page)| Ok::<_, io::Error>((index, *page)));
        let laid_pages = pages::write(&worker.pages, laid).map_err(WorkerError::Descriptors)?;
        let order = Order::Restore {
            laid_pages,
            claims: claims.iter().map(|(port, _)| *port).collect(),
        };
        let rest: Vec<BorrowedFd<'_>> = claims.iter().map(|(_, socket)| socket.as_fd()).collect();
        worker.tell_with_parts(&order, &given, &rest)?;
        worker.done()?;
        Ok(worker)
    }

    fn start(program: &Program, memory_bytes: u64) -> Result<Self, WorkerError> {
        let make = WorkerError::Descriptors;
        let (socket, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| make(errno.into()))?;
        let saved = memory_backed("vmrepl-saved").map_err(make)?;
        let pages = memory_backed("vmrepl-pages").map_err(make)?;
        let console = memory_backed("vmrepl-console").map_err(make)?;
        let errors = memory_backed("vmrepl-stderr").map_err(make)?;
        let child = Command::new(&program.path)
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
            pages,
            console,
            errors,
            memory_bytes,
            ended: None,
        })
    }

    fn tell_with_parts(
        &self,
        order: &Order,
        given: &[File; 3],
        rest: &[BorrowedFd<'_>],
    ) -> Result<(), WorkerError> {
        let mut descriptors: Vec<BorrowedFd<'_>> = given.iter().map(AsFd::as_fd).collect();
        descriptors.extend([&self.console, &self.saved, &self.pages].map(AsFd::as_fd));
        descriptors.extend(rest);
        self.tell(order, &descriptors)
    }

    fn tell(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> Result<(), WorkerError> {
        send(self.socket.as_fd(), order, descriptors).map_err(|source| match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => self.gone(),
            _ => WorkerError::Speak(source),
        })
    }

    /// Waits for the answer to an order.
    fn answer(&mut self) -> Result<Report, WorkerError> {
        loop {
            match receive(&self.socket, RecvFlags::empty()).map_err(WorkerError::Speak)? {
                Heard::Closed => return Err(self.gone()),
                Heard::Message(Report::Ended { why }, _) => self.ended = Some(why),
                Heard::Message(Report::Failed { chain }, _) => {
                    return Err(WorkerError::Refused { chain });
                }
                Heard::Message(report, _) => return Ok(report),
            }
        }
    }

    fn done(&mut self) -> Result<(), WorkerError> {
        match self.answer()? {
            Report::Done => Ok(()),
            _ => Err(WorkerError::Answer),
        }
    }

    fn order(&mut self, order: &Order) -> Result<Report, WorkerError> {
        self.tell(order, &[])?;
        self.answer()
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

    /// The state of everything but memory of a resting machine. About 12 KB.
    ///
    /// # Errors
    /// When the worker is gone or KVM does not give the state.
    pub fn save_state(&mut self) -> Result<Vec<u8>, WorkerError> {
        let Report::Saved { bytes } = self.order(&Order::Save)? else {
            return Err(WorkerError::Answer);
        };
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

    /// Gives every page that was written since the restore to `each`, in order of its index, of a resting
    /// machine. Pages that were laid at the restore are among them.
    ///
    /// # Errors
    /// When the worker is gone or hands over nonsense.
    pub fn written_pages(&mut self, mut each: impl FnMut(u64, &Page)) -> Result<u64, WorkerError> {
        let Report::Pages { count } = self.order(&Order::Pages)? else {
            return Err(WorkerError::Answer);
        };
        let limit = self.memory_bytes / PAGE_BYTES as u64;
        let indices = pages::indices(&self.pages, count, limit).map_err(WorkerError::Read)?;
        let mut page = [0; PAGE_BYTES];
        for (place, index) in indices.into_iter().enumerate() {
            pages::read(&self.pages, place, &mut page).map_err(WorkerError::Read)?;
            each(index, &page);
        }
        Ok(count)
    }

    /// Why the machine or its worker has ended; `None` while it lives.
    pub fn ended(&mut self) -> Option<String> {
        while self.ended.is_none() {
            match receive(&self.socket, RecvFlags::DONTWAIT) {
                Ok(Heard::Message(Report::Ended { why }, _)) => self.ended = Some(why),
                Ok(Heard::Message(Report::Failed { chain }, _)) => {
                    self.ended = Some(chain.join(": "));
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

    /// Ends the process now and waits for it.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
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
        send(self.socket.as_fd(), &order, &[socket.as_fd()])
    }
}

fn open_kvm() -> Result<File, WorkerError> {
    let both = File::options().read(true).write(true).clone();
    open(Path::new("/dev/kvm"), &both)
}

fn open_read(path: &Path) -> Result<File, WorkerError> {
    open(path, File::options().read(true))
}

fn open(path: &Path, options: &std::fs::OpenOptions) -> Result<File, WorkerError> {
    options.open(path).map_err(|source| WorkerError::Open {
        path: path.to_owned(),
        source,
    })
}

fn memory_backed(name: &str) -> io::Result<File> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
    Ok(File::from(file))
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
