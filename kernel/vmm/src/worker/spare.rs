//! A worker that waits for its machine: its process, its jail and, once the machine's shape is known, all that KVM
//! takes time for are made before a restore asks for them.

use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use crate::parts::Purpose;
use crate::phases::{Phases, now_ns};
use crate::worker::error::WorkerError;
use crate::worker::message::Order;
use crate::worker::parent::Worker;
use crate::worker::parts::{
    Config, Page, Program, Restore, memory_backed, open_kvm, open_read, write_pages,
};

/// A worker without a machine. Killed and reaped on drop.
#[derive(Debug)]
pub struct SpareWorker {
    worker: Worker,
    begun_ns: u64,
    spawned_ns: u64,
    /// It was told to prepare and has not answered yet.
    is_asked: bool,
}

impl SpareWorker {
    /// Starts the process. Nothing is waited for.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Program) -> Result<Self, WorkerError> {
        let begun_ns = now_ns();
        let worker = Worker::start(program)?;
        Ok(Self {
            worker,
            begun_ns,
            spawned_ns: now_ns(),
            is_asked: false,
        })
    }

    /// Tells it what its machine will be like, so that it builds what a restore of that can use. Nothing is
    /// waited for. A restore of another shape works, too, and gains less.
    ///
    /// # Errors
    /// When KVM cannot be opened or the worker is gone.
    pub fn prepare(
        &mut self,
        memory_bytes: u64,
        vcpus: u8,
        purpose: Purpose,
    ) -> Result<(), WorkerError> {
        self.settle()?;
        let order = Order::Prepare {
            memory_bytes,
            vcpus,
            purpose,
        };
        self.worker.tell(&order, &[open_kvm()?.as_fd()])?;
        self.is_asked = true;
        Ok(())
    }

    /// Waits until it has built what it was told to.
    ///
    /// # Errors
    /// When the worker is gone or KVM cannot be used.
    pub fn settle(&mut self) -> Result<(), WorkerError> {
        if std::mem::take(&mut self.is_asked) {
            self.worker.done()?;
        }
        Ok(())
    }

    /// Restores a machine from its memory file, its saved state and the pages over the file. Sockets of the
    /// claims become streams to their guest ports, and may be written to at once: the worker has been told, and its
    /// answer is not waited for. [`Worker::settle`] does that, and so does whatever is asked of it next.
    ///
    /// # Errors
    /// When a file or KVM cannot be opened, or the worker is gone.
    pub fn restore<'a>(
        mut self,
        config: &Config,
        restore: &Restore<'_>,
        laid: impl Iterator<Item = (u64, &'a Page)>,
    ) -> Result<Worker, WorkerError> {
        let asked_ns = now_ns();
        self.worker.memory_bytes = config.memory_bytes;
        let given = [
            open_kvm()?,
            open_read(&config.memory_file)?,
            open_read(&config.root)?,
        ];
        let make = WorkerError::Descriptors;
        let state_bytes = restore.state.len() as u64;
        let saved = &self.worker.saved;
        saved.write_all_at(restore.state, 0).map_err(make)?;
        saved.write_all_at(restore.hot, state_bytes).map_err(make)?;
        let laid_file = memory_backed("vmrepl-laid").map_err(make)?;
        let laid_pages = write_pages(&laid_file, laid).map_err(make)?;
        let order = Order::Restore {
            state_bytes,
            purpose: restore.purpose,
            laid_pages,
            claims: restore.claims.iter().map(|(port, _)| *port).collect(),
            run: restore.run,
        };
        let mut rest = vec![laid_file.as_fd()];
        rest.extend(restore.claims.iter().map(|(_, socket)| socket.as_fd()));
        self.worker.tell_with_parts(&order, &given, &rest)?;
        self.worker.owed = usize::from(self.is_asked) + 1;
        self.worker.phases = Phases {
            begun_ns: self.begun_ns,
            spawned_ns: self.spawned_ns,
            asked_ns,
            ..Phases::default()
        };
        Ok(self.worker)
    }

    /// Whether its process lives.
    #[must_use]
    pub fn is_alive(&mut self) -> bool {
        self.worker.ended().is_none()
    }
}
