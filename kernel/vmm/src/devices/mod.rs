//! Everything of the machine that is neither memory nor processor.
//!
//! A processor's access to ports and registers comes in here, and so do the sockets of streams; what goes out
//! is an interrupt, a byte for the console, or the news that the machine has ended.

mod block;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod generation;
mod ioapic;
mod serial;
mod transport;

#[cfg(test)]
pub(crate) mod tests;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;
use virtio_queue::QueueT as _;

use crate::boot::{SLEEP_ENABLE, SLEEP_TYPE_MASK, SLEEP_TYPE_OFF, SLEEP_TYPE_SHIFT};
use crate::layout::{
    FIRST_VIRTIO_LINE, GENERATION_ASKED, GENERATION_LINE, IOAPIC, KEYBOARD_COMMAND, KEYBOARD_RESET,
    SERIAL, SERIAL_LINE, SERIAL_PORTS, SLEEP_CONTROL, VIRTIO_MMIO, VIRTIO_MMIO_BYTES,
};
use crate::ram::Memory;
use crate::state::DevicesState;
use crate::vsock::{Vsock, VsockState};

use block::Block;
use generation::Generation;
use ioapic::{Ioapic, Message};
use serial::Console;
use transport::{Asked, Transport};

pub(crate) use ioapic::{IoapicState, LINES};
pub(crate) use transport::TransportState;

/// Virtio's numbers of device types.
const DEVICE_BLOCK: u32 = 2;
const DEVICE_VSOCK: u32 = 19;

/// Places of the devices, in the order of their addresses.
const BLOCK: usize = 0;
const VSOCK: usize = 1;
pub(crate) const VIRTIO_DEVICES: u32 = 2;

/// Queues of the vsock device.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// The guest's address on vsock. It is the same in every machine: nobody else is reached by it.
const GUEST_CID: u32 = 3;

/// A guest that broke the rules of a device. Its machine ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the guest broke a device's rules: {what}")]
pub struct Broken {
    what: String,
}

impl Broken {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }

    fn streams(error: &dyn std::error::Error) -> Self {
        let cause = error.source().map(|cause| format!(": {cause}"));
        Self::new(format!("{error}{}", cause.unwrap_or_default()))
    }

    pub(crate) fn queue(device: &str, error: &dyn std::fmt::Display) -> Self {
        Self::new(format!("a queue of the {device} device: {error}"))
    }
}

/// A saved state that cannot be taken.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("it does not begin as the state of a machine")]
    Magic,
    #[error("its version is {found}, this program knows {known}")]
    Version { found: u32, known: u32 },
    #[error("it ends too early")]
    Truncated,
    #[error("{bytes} bytes follow its end")]
    Rest { bytes: usize },
    #[error("it has {found} {what}, the limit is {limit}")]
    Limit {
        what: &'static str,
        found: usize,
        limit: usize,
    },
    #[error("a device cannot be as it says: {what}")]
    Device { what: &'static str },
    #[error("the streams cannot be as it says: {why}")]
    Streams { why: String },
    #[error("it is of a machine with {found} bytes of memory, this one has {bytes}")]
    Memory { found: u64, bytes: u64 },
}

/// Why a machine ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    PowerOff,
    Reset,
}

/// Where devices' interrupts go.
trait LocalApics: std::fmt::Debug + Send {
    /// Delivers a message, or loses it when no processor takes it.
    fn send(&self, message: Message) -> Result<(), Broken>;
}

impl LocalApics for Arc<VmFd> {
    fn send(&self, message: Message) -> Result<(), Broken> {
        let msi = kvm_msi {
            address_lo: message.address,
            data: message.data,
            ..Default::default()
        };
        match self.signal_msi(msi) {
            Ok(_) => Ok(()),
            // KVM's word for a message that is addressed to nobody: the guest's own mistake, and its loss.
            Err(error) if error.errno() == libc::EPERM => Ok(()),
            Err(error) => Err(Broken::new(format!(
                "an interrupt to {:#x} with data {:#x}: {error}",
                message.address, message.data
            ))),
        }
    }
}

/// All devices of a machine.
#[derive(Debug)]
pub(crate) struct Devices {
    apics: Box<dyn LocalApics>,
    memory: Memory,
    ioapic: Ioapic,
    console: Console,
    generation: Generation,
    transports: [Transport; 2],
    block: Block,
    pub(crate) vsock: Vsock,
}

impl Devices {
    pub(crate) fn new(
        vm: Arc<VmFd>,
        memory: Memory,
        root: File,
        console: File,
    ) -> io::Result<Self> {
        Self::with_apics(Box::new(vm), memory, root, console)
    }

    fn with_apics(
        apics: Box<dyn LocalApics>,
        memory: Memory,
        root: File,
        console: File,
    ) -> io::Result<Self> {
        Ok(Self {
            apics,
            memory,
            ioapic: Ioapic::new(),
            console: Console::new(console),
            generation: Generation::default(),
            transports: [
                Transport::new(DEVICE_BLOCK, block::FEATURE_READ_ONLY, 1),
                Transport::new(DEVICE_VSOCK, 0, 3),
            ],
            block: Block::new(root)?,
            vsock: Vsock::new(GUEST_CID)?,
        })
    }

    /// A processor reads a port.
    pub(crate) fn read_port(&mut self, port: u16, data: &mut [u8]) {
        // Nothing there: the bus floats high.
        data.fill(0xff);
        match port.checked_sub(SERIAL) {
            Some(offset) if offset < SERIAL_PORTS && data.len() == 1 => {
                data[0] = self.console.read(offset);
            }
            // No byte waits, and the controller takes commands.
            _ if port == KEYBOARD_COMMAND => data.fill(0),
            _ => {}
        }
    }

    /// A processor writes a port. Some when the machine ends by it.
    pub(crate) fn write_port(&mut self, port: u16, data: &[u8]) -> Result<Option<Ended>, Broken> {
        let Some(&byte) = data.first() else {
            return Ok(None);
        };
        match port.checked_sub(SERIAL) {
            Some(offset) if offset < SERIAL_PORTS => self.write_console(offset, byte)?,
            _ if port == KEYBOARD_COMMAND && byte == KEYBOARD_RESET => {
                return Ok(Some(Ended::Reset));
            }
            _ if port == GENERATION_ASKED => self.generation.is_asked = true,
            _ if port == SLEEP_CONTROL => {
                let kind = (byte >> SLEEP_TYPE_SHIFT) & SLEEP_TYPE_MASK;
                if byte & SLEEP_ENABLE != 0 && kind == SLEEP_TYPE_OFF {
                    return Ok(Some(Ended::PowerOff));
                }
            }
            _ => {}
        }
        Ok(None)
    }

    fn write_console(&mut self, offset: u16, byte: u8) -> Result<(), Broken> {
        if self.console.write(offset, byte) {
            self.raise(SERIAL_LINE)?;
        }
        Ok(())
    }

    /// A processor reads memory that is a device's.
    pub(crate) fn read_memory(&mut self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if Ioapic::contains(address) {
            data.fill(0);
            self.ioapic.read(address - IOAPIC, data);
        } else if let Some((device, offset)) = place(address) {
            let (block, vsock) = (self.block.config(), self.vsock.config());
            let config = if device == BLOCK { block } else { vsock };
            self.transports[device].read(offset, &config, data);
        }
    }

    /// A processor writes memory that is a device's.
    pub(crate) fn write_memory(&mut self, address: u64, data: &[u8]) -> Result<(), Broken> {
        if Ioapic::contains(address) {
            let message = self.ioapic.write(address - IOAPIC, data);
            return self.signal(message);
        }
        let Some((device, offset)) = place(address) else {
            return Ok(());
        };
        match self.transports[device].write(offset, data, &self.memory)? {
            Asked::Nothing => Ok(()),
            Asked::Reset => {
                if device == VSOCK {
                    self.vsock.reset();
                }
                Ok(())
            }
            Asked::Notify(queue) => self.notified(device, queue),
            // A driver may fill its queues, and even say so, before it is done.
            Asked::Start if device == VSOCK => self.notified(VSOCK, TRANSMIT),
            Asked::Start => Ok(()),
        }
    }

    fn notified(&mut self, device: usize, queue: usize) -> Result<(), Broken> {
        let transport = &mut self.transports[device];
        if !transport.is_live() {
            return Ok(());
        }
        let used = match (device, queue) {
            (BLOCK, 0) => ready(&mut transport.queues[0])
                .map_or(Ok(false), |queue| self.block.serve(&self.memory, queue))?,
            (VSOCK, TRANSMIT) => match ready(&mut transport.queues[TRANSMIT]) {
                Some(queue) => {
                    // What the guest sent may be answered at once.
                    let sent = self.vsock.transmit(&self.memory, queue);
                    let used = sent.map_err(|error| Broken::streams(&error))?;
                    used | self.fill()?
                }
                None => false,
            },
            (VSOCK, RECEIVE) => self.fill()?,
            _ => false,
        };
        if used {
            self.interrupt(device)?;
        }
        Ok(())
    }

    /// Gives the guest what waits for it.
    fn fill(&mut self) -> Result<bool, Broken> {
        let transport = &mut self.transports[VSOCK];
        if !transport.is_live() || !self.vsock.wants_to_send() {
            return Ok(false);
        }
        match ready(&mut transport.queues[RECEIVE]) {
            Some(queue) => self
                .vsock
                .receive(&self.memory, queue)
                .map_err(|error| Broken::streams(&error)),
            None => Ok(false),
        }
    }

    /// The sockets of streams have something to read or take.
    pub(crate) fn sockets_ready(&mut self) -> Result<(), Broken> {
        self.vsock.on_host();
        self.pass_on()
    }

    /// Does what was asked for when the state was saved, and tells the guest what waits for it.
    pub(crate) fn catch_up(&mut self) -> Result<(), Broken> {
        self.notified(VSOCK, TRANSMIT)?;
        self.pass_on()
    }

    /// Tells the guest what waits for it, after something outside has changed.
    pub(crate) fn pass_on(&mut self) -> Result<(), Broken> {
        if self.fill()? {
            self.interrupt(VSOCK)?;
        }
        Ok(())
    }

    /// Tells a guest that it is a copy, if it wants to know.
    pub(crate) fn become_copy(&mut self) -> Result<(), Broken> {
        if self.generation.renew(&self.memory)? {
            self.raise(GENERATION_LINE)?;
        }
        Ok(())
    }

    fn interrupt(&mut self, device: usize) -> Result<(), Broken> {
        self.transports[device].interrupt();
        let line = FIRST_VIRTIO_LINE + u32::try_from(device).expect("two devices");
        self.raise(line)
    }

    fn raise(&mut self, line: u32) -> Result<(), Broken> {
        let message = self.ioapic.raise(line);
        self.signal(message)
    }

    fn signal(&self, message: Option<Message>) -> Result<(), Broken> {
        message.map_or(Ok(()), |message| self.apics.send(message))
    }

    /// What waits for whom, in words.
    pub(crate) fn condition(&self) -> String {
        let device = |(name, transport): (&str, &Transport)| {
            let queues: Vec<String> = transport
                .queues
                .iter()
                .map(|queue| {
                    let available = queue
                        .avail_idx(&self.memory, Ordering::Acquire)
                        .map_or_else(|error| error.to_string(), |index| index.0.to_string());
                    format!(
                        "{} of {available}, used {}",
                        queue.next_avail(),
                        queue.next_used()
                    )
                })
                .collect();
            format!("{name} {}: {}", transport.condition(), queues.join(" / "))
        };
        let devices = ["block", "vsock"].into_iter().zip(&self.transports);
        let said: Vec<String> = devices.map(device).collect();
        format!(
            "{}; packets wait: {}; {:?}; lines raised while masked: {:#x}",
            said.join("; "),
            self.vsock.wants_to_send(),
            self.vsock.save(),
            self.ioapic.state().pending
        )
    }

    pub(crate) fn state(&self) -> DevicesState {
        DevicesState {
            ioapic: self.ioapic.state().clone(),
            serial: self.console.state(),
            is_generation_asked: self.generation.is_asked,
            transports: self.transports.iter().map(Transport::state).collect(),
            vsock: self.vsock.save().encode(),
        }
    }

    /// Goes back to a state that these devices were in before. Its streams stay with their sockets.
    pub(crate) fn roll_back(&mut self, state: &DevicesState) -> Result<(), StateError> {
        let streams = self.set_registers(state)?;
        self.vsock.rollback(&streams);
        Ok(())
    }

    /// Takes a saved state, whose streams go on with `claims`: a guest port and a socket each.
    pub(crate) fn set_state(
        &mut self,
        state: &DevicesState,
        claims: Vec<(u32, std::os::unix::net::UnixStream)>,
    ) -> Result<(), StateError> {
        let streams = self.set_registers(state)?;
        self.vsock = Vsock::restore(&streams, claims).map_err(|error| StateError::Streams {
            why: error.to_string(),
        })?;
        Ok(())
    }

    /// Sets all but the streams, and returns these.
    fn set_registers(&mut self, state: &DevicesState) -> Result<VsockState, StateError> {
        if state.transports.len() != self.transports.len() {
            return Err(StateError::Device {
                what: "number of virtio devices",
            });
        }
        let streams = VsockState::decode(&state.vsock).map_err(|error| StateError::Streams {
            why: error.to_string(),
        })?;
        for (transport, saved) in self.transports.iter_mut().zip(&state.transports) {
            transport.set_state(saved, &self.memory)?;
        }
        self.ioapic.set_state(state.ioapic.clone());
        self.console.set_state(state.serial);
        self.generation.is_asked = state.is_generation_asked;
        Ok(streams)
    }
}

/// The device that an address belongs to, and the place in its registers.
fn place(address: u64) -> Option<(usize, u64)> {
    let offset = address.checked_sub(VIRTIO_MMIO)?;
    let device = usize::try_from(offset / VIRTIO_MMIO_BYTES).ok()?;
    (device < VIRTIO_DEVICES as usize).then_some((device, offset % VIRTIO_MMIO_BYTES))
}

/// A queue, once the driver has set it up.
fn ready(queue: &mut virtio_queue::Queue) -> Option<&mut virtio_queue::Queue> {
    queue.ready().then_some(queue)
}
