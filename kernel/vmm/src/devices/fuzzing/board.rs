//! All devices under a processor that does anything: registers, ports, memory, and what comes from outside meanwhile.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::{disk, file};
use crate::devices::ioapic::Message;
use crate::devices::transport::{STATUS_DRIVER_OK, STATUS_FEATURES_OK};
use crate::devices::{Broken, Devices, LocalApics, StateError};
use crate::fuzzing::{NEXT, Ring, Script, WRITE};
use crate::layout::{FIRST_VIRTIO_LINE, IOAPIC, SERIAL, VIRTIO_MMIO, VIRTIO_MMIO_BYTES};
use crate::limits::CONSOLE_BYTES;
use crate::ram::Memory;
use crate::state::{DevicesState, MachineState, VcpuState};
use crate::vsock::Greeting;

pub(crate) const MEMORY_BYTES: usize = 1 << 20;
/// The block queue, the receive queue, the transmit queue, and one that is nobody's.
const RINGS: [u32; 4] = [0x1000, 0x2000, 0x3000, 0x4000];
const HEADERS: u64 = 0x8000;
const DATA: u64 = 0x1_0000;
const CLIENTS_MAX: usize = 32;

/// Registers of a virtio device that can be written.
const REGISTERS: [u64; 16] = [
    0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0x70, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4,
];

/// Lets a processor and clients act on the devices, as the input says. A device is up only when it has agreed; what is
/// taken from a ring comes back; one access sends one interrupt at most; what is saved can be taken back.
pub fn devices(input: &[u8]) {
    let mut script = Script::new(input);
    let mut board = Board::fresh();
    let starts = script.byte();
    for (device, bit) in [(0, 1), (1, 2)] {
        if starts & bit != 0 && board.start(device).is_err() {
            return;
        }
    }
    while !script.is_over() {
        if board.act(&mut script).is_err() {
            // The guest broke a device's rules: its machine has ended.
            return;
        }
        board.check();
    }
}

/// Counts the messages that devices send.
#[derive(Debug, Clone, Default)]
struct Sent(Arc<AtomicUsize>);

impl LocalApics for Sent {
    fn send(&self, message: Message) -> Result<(), Broken> {
        assert_eq!(message.address >> 20, 0xfee, "a message to a local APIC");
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Board {
    devices: Devices,
    memory: Memory,
    console: File,
    sent: Sent,
    rings: [Ring; 4],
    clients: Vec<UnixStream>,
    saved: Option<DevicesState>,
}

impl Board {
    pub(crate) fn new(memory: Memory) -> Self {
        let console = file(&[]);
        let sent = Sent::default();
        let apics = Box::new(sent.clone());
        let other = console.try_clone().expect("descriptors");
        let devices = Devices::with_apics(apics, memory.clone(), disk(), other);
        Self {
            devices: devices.expect("descriptors"),
            memory,
            console,
            sent,
            rings: RINGS.map(Ring::new),
            clients: Vec::new(),
            saved: None,
        }
    }

    /// With memory of its own, all zero.
    pub(crate) fn fresh() -> Self {
        let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]);
        Self::new(memory.expect("memory"))
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> DevicesState {
        self.devices.state()
    }

    fn act(&mut self, script: &mut Script<'_>) -> Result<(), Broken> {
        match script.byte() % 22 {
            0..=4 => return self.register(script),
            5 => {
                let at = address(script);
                let mut data = vec![0; usize::from(script.byte() % 9)];
                self.devices.read_memory(at, &mut data);
            }
            6 | 7 => {
                let (at, count) = (address(script), usize::from(script.byte() % 9));
                return self.write(at, script.bytes(count));
            }
            8 => {
                let port = SERIAL + u16::from(script.byte() % 9);
                let port = if port == SERIAL + 8 {
                    script.u16()
                } else {
                    port
                };
                let count = usize::from(script.byte() % 5);
                self.devices.write_port(port, script.bytes(count))?;
                self.devices.read_port(port, &mut vec![0; count]);
            }
            9 | 10 => self.describe(script),
            11 | 12 => {
                let (ring, head) = (script.pick(4), script.u16());
                if head & 0x8000 == 0 {
                    self.rings[ring].offer(&self.memory, head & 0xff);
                } else {
                    self.rings[ring].set_index(&self.memory, head & 0x7fff);
                }
            }
            13 => {
                let at = GuestAddress(16 * u64::from(script.u16() & 0xfff));
                let count = usize::from(script.byte() % 64);
                let stored = self.memory.write_slice(script.bytes(count), at);
                stored.expect("the first pages lie in memory");
            }
            14 => return self.start(script.pick(2)),
            15 => return self.ask(script),
            16 => return self.packet(script),
            17 => return self.open(script.byte()),
            18 | 19 => return self.client(script),
            20 => return self.save(script.byte()),
            _ => {
                self.devices.condition();
            }
        }
        Ok(())
    }

    /// A processor's write.
    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Broken> {
        let before = self.sent.0.load(Ordering::Relaxed);
        let outcome = self.devices.write_memory(at, data);
        let sent = self.sent.0.load(Ordering::Relaxed) - before;
        assert!(sent <= 1, "{sent} interrupts for one access");
        outcome
    }

    fn write_register(&mut self, device: usize, register: u64, value: u32) -> Result<(), Broken> {
        let base = VIRTIO_MMIO + device as u64 * VIRTIO_MMIO_BYTES;
        self.write(base + register, &value.to_le_bytes())
    }

    fn register(&mut self, script: &mut Script<'_>) -> Result<(), Broken> {
        let (which, how) = (script.byte(), script.byte());
        let near = u32::from(script.byte());
        let value = match how & 7 {
            0..=2 => near,
            3 => near << 12,
            4 => 1 << (near % 32),
            5 => RINGS[near as usize % 4] + u32::from(how >> 3 & 3) * Ring::AVAILABLE,
            6 => u32::from(Ring::SIZE),
            _ => script.u32(),
        };
        let register = REGISTERS[usize::from(which) % 16];
        self.write_register(usize::from(which >> 4) % 2, register, value)
    }

    /// What a driver says until its device is up.
    pub(crate) fn start(&mut self, device: usize) -> Result<(), Broken> {
        for (register, value) in [
            (0x70, 0),
            (0x70, 3),
            (0x24, 1),
            (0x20, 1),
            (0x24, 0),
            (0x20, 0),
            (0x70, 11),
        ] {
            self.write_register(device, register, value)?;
        }
        // Its line goes to the first processor.
        let line = FIRST_VIRTIO_LINE + u32::try_from(device).expect("few");
        for (register, value) in [(0x11 + 2 * line, 0), (0x10 + 2 * line, 0x40 + line)] {
            self.write(IOAPIC, &register.to_le_bytes())?;
            self.write(IOAPIC + 0x10, &value.to_le_bytes())?;
        }
        let rings = [&RINGS[..1], &RINGS[1..3]][device];
        for (queue, base) in (0..).zip(rings) {
            for (register, value) in [
                (0x30, queue),
                (0x38, u32::from(Ring::SIZE)),
                (0x80, *base),
                (0x84, 0),
                (0x90, base + Ring::AVAILABLE),
                (0x94, 0),
                (0xa0, base + Ring::USED),
                (0xa4, 0),
                (0x44, 1),
            ] {
                self.write_register(device, register, value)?;
            }
        }
        self.write_register(device, 0x70, 15)
    }

    fn describe(&mut self, script: &mut Script<'_>) {
        let (ring, slot, how) = (script.pick(4), script.byte(), script.byte());
        let near = u64::from(script.u16());
        let at = match how >> 3 & 3 {
            0 => HEADERS + 16 * (near % 64),
            1 => DATA + 8 * near,
            2 => MEMORY_BYTES as u64 - near % 0x200,
            _ => near << (how >> 5),
        };
        let bytes = if how & 0x80 == 0 {
            u32::from(script.u16())
        } else {
            script.u32()
        };
        let next = u16::from(script.byte());
        let descriptor = Descriptor::new(at, bytes, u16::from(how & 7), next);
        self.rings[ring].describe(&self.memory, u16::from(slot), descriptor);
    }

    fn store(&self, at: u64, bytes: &[u8]) {
        let stored = self.memory.write_slice(bytes, GuestAddress(at));
        stored.expect("headers lie in memory");
    }

    /// A request to the disk in three descriptors.
    fn ask(&mut self, script: &mut Script<'_>) -> Result<(), Broken> {
        let (kind, sector, count) = (script.byte() % 10, script.byte(), script.byte());
        self.store(HEADERS, &u32::from(kind).to_le_bytes());
        self.store(HEADERS + 8, &u64::from(sector).to_le_bytes());
        let bytes = u32::from(count) * 128;
        let parts = [
            Descriptor::new(HEADERS, 16, NEXT, 61),
            Descriptor::new(DATA, bytes, WRITE | NEXT, 62),
            Descriptor::new(HEADERS + 16, 1, WRITE, 0),
        ];
        for (slot, part) in (60..).zip(parts) {
            self.rings[0].describe(&self.memory, slot, part);
        }
        self.rings[0].offer(&self.memory, 60);
        self.write_register(0, 0x50, 0)
    }

    /// A packet to a stream, and a buffer for the answer.
    fn packet(&mut self, script: &mut Script<'_>) -> Result<(), Broken> {
        let (op, ports, length) = (script.byte() % 9, script.byte(), script.u16());
        let mut header = [0; 44];
        header[0] = 3;
        header[8] = 2;
        header[16] = ports & 3;
        header[20..22].copy_from_slice(&(1024 + u16::from(ports >> 2)).to_le_bytes());
        header[24..26].copy_from_slice(&length.to_le_bytes());
        header[28] = 1;
        header[30] = op;
        header[32] = script.byte();
        header[36..40].copy_from_slice(&0x4_0000_u32.to_le_bytes());
        self.store(HEADERS + 32, &header);
        let bytes = 44 + u32::from(length);
        let packet = Descriptor::new(HEADERS + 32, bytes, 0, 0);
        self.rings[2].describe(&self.memory, 60, packet);
        self.rings[2].offer(&self.memory, 60);
        let space = Descriptor::new(DATA + 0x2_0000, 0x1000, WRITE, 0);
        self.rings[1].describe(&self.memory, 60, space);
        self.rings[1].offer(&self.memory, 60);
        self.write_register(1, 0x50, 1)
    }

    fn open(&mut self, how: u8) -> Result<(), Broken> {
        if self.clients.len() < CLIENTS_MAX {
            let (near, far) = UnixStream::pair().expect("descriptors");
            near.set_nonblocking(true).expect("a socket");
            self.clients.push(near);
            let greeting = Greeting {
                early: vec![1; usize::from(how >> 4) * 300],
                answer: how & 8 != 0,
            };
            self.devices.vsock.open(u32::from(how & 3), far, greeting);
        }
        self.devices.pass_on()
    }

    fn client(&mut self, script: &mut Script<'_>) -> Result<(), Broken> {
        let (which, what) = (script.pick(self.clients.len()), script.byte());
        if let Some(client) = self.clients.get_mut(which) {
            match what % 3 {
                // A socket that is full, or has no other end any more, takes less.
                0 => drop(client.write(&vec![2; 64 * usize::from(what)])),
                1 => drop(client.read(&mut [0; 10_000])),
                _ => drop(self.clients.swap_remove(which)),
            }
        }
        self.devices.sockets_ready()
    }

    /// Saves, and goes on here or in other devices over the same memory.
    fn save(&mut self, how: u8) -> Result<(), Broken> {
        let saved = self.devices.state();
        let bytes = machine(saved.clone()).encode();
        let again = MachineState::decode(&bytes).map(|state| state.devices);
        assert_eq!(again.as_ref(), Ok(&saved), "what is written can be read");
        match how % 3 {
            0 => self.saved = Some(saved),
            1 => {
                if let Some(saved) = &self.saved {
                    let back = self.devices.roll_back(saved);
                    assert_eq!(back, Ok(()), "what was saved here fits");
                    let mut now = self.devices.state();
                    // Streams may have ended meanwhile.
                    now.vsock.clone_from(&saved.vsock);
                    assert_eq!(now, *saved, "registers are as they were");
                }
            }
            _ => {
                let mut other = Self::new(self.memory.clone());
                assert_eq!(other.take(&saved, Vec::new()), Ok(()));
                let mut expected = saved;
                expected.vsock = self.unclaimed(&expected);
                assert_eq!(other.devices.state(), expected);
                std::mem::swap(&mut other.rings, &mut self.rings);
                *self = other;
            }
        }
        self.devices.catch_up()
    }

    /// The streams of a state as they are when nobody claims any.
    fn unclaimed(&self, state: &DevicesState) -> Vec<u8> {
        let mut streams = crate::vsock::VsockState::decode(&state.vsock).expect("just saved");
        let connections = std::mem::take(&mut streams.connections);
        let gone = connections.iter().map(|c| (c.guest_port, c.host_port));
        let resets: std::collections::BTreeSet<_> = streams.resets.drain(..).chain(gone).collect();
        streams.resets = resets.into_iter().collect();
        streams.encode()
    }

    /// Takes a state of any origin.
    pub(crate) fn take(
        &mut self,
        state: &DevicesState,
        claims: Vec<(u32, UnixStream)>,
    ) -> Result<(), StateError> {
        self.devices.set_state(state, claims)
    }

    /// What a restored machine does first, between accesses of a guest that knows nothing of it. The disk comes first:
    /// it breaks no machine over a chain that makes no sense.
    pub(crate) fn go_on(&mut self) -> Result<(), Broken> {
        self.devices.condition();
        self.write_register(0, 0x50, 0)?;
        self.devices.catch_up()?;
        for queue in [0, 1] {
            self.write_register(1, 0x50, queue)?;
        }
        self.devices.sockets_ready()?;
        self.save(0)
    }

    pub(crate) fn check(&self) {
        for transport in self.devices.state().transports {
            let is_up = transport.status & STATUS_DRIVER_OK != 0;
            assert!(!is_up || transport.status & STATUS_FEATURES_OK != 0);
            for queue in transport.queues {
                assert_eq!(
                    queue.next_avail, queue.next_used,
                    "what was taken came back"
                );
            }
        }
        let console = self.console.metadata().expect("a file").len();
        assert!(console <= CONSOLE_BYTES as u64);
    }
}

fn address(script: &mut Script<'_>) -> u64 {
    let (what, near) = (script.byte(), script.u16());
    match what % 8 {
        0..=3 => VIRTIO_MMIO + u64::from(near % 0x3000),
        4 => IOAPIC,
        5 => IOAPIC + 0x10,
        6 => IOAPIC + u64::from(near),
        _ => script.u64(),
    }
}

/// A machine of these devices and one processor.
pub(crate) fn machine(devices: DevicesState) -> MachineState {
    let vcpu = VcpuState {
        tsc_khz: 2_000_000,
        mp_state: Default::default(),
        regs: Default::default(),
        sregs: Default::default(),
        xsave: vec![0; 16],
        xcrs: Default::default(),
        debug: Default::default(),
        lapic: Default::default(),
        msrs: vec![Default::default()],
        events: Default::default(),
    };
    MachineState {
        memory_bytes: MEMORY_BYTES as u64,
        clock_ns: 1,
        cpuid: vec![Default::default()],
        vcpus: vec![vcpu],
        devices,
    }
}
