//! The state of a paused machine without its memory, as bytes.
//!
//! Fixed layout, little-endian, structures exactly as KVM's calls take them (Linux's `asm/kvm.h`), so that a
//! restore copies and never parses. Read back, every count is checked against its limit before anything is
//! taken; what the values mean is for KVM and the devices to refuse.

use kvm_bindings::{
    kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs,
    kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use virtio_queue::QueueState;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::devices::{IoapicState, LINES, StateError, TransportState};
use crate::limits::{CPUID_ENTRIES, MSR_ENTRIES, STATE_BYTES, VCPUS_MAX, XSAVE_BYTES};

/// Version of this layout, and of the machine behind it: devices, their order and their addresses.
pub const STATE_VERSION: u32 = 2;

const MAGIC: [u8; 8] = *b"VMREPLKV";
/// Queues of one device.
const QUEUES_MAX: usize = 8;

/// Everything but memory.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MachineState {
    pub(crate) memory_bytes: u64,
    /// KVM's clock, in nanoseconds.
    pub(crate) clock_ns: u64,
    pub(crate) cpuid: Vec<kvm_cpuid_entry2>,
    pub(crate) vcpus: Vec<VcpuState>,
    pub(crate) devices: DevicesState,
}

/// One virtual processor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VcpuState {
    pub(crate) tsc_khz: u32,
    pub(crate) mp_state: kvm_mp_state,
    pub(crate) regs: kvm_regs,
    pub(crate) sregs: kvm_sregs,
    pub(crate) xsave: Vec<u8>,
    pub(crate) xcrs: kvm_xcrs,
    pub(crate) debug: kvm_debugregs,
    pub(crate) lapic: kvm_lapic_state,
    pub(crate) msrs: Vec<kvm_msr_entry>,
    pub(crate) events: kvm_vcpu_events,
}

/// All devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DevicesState {
    pub(crate) ioapic: IoapicState,
    /// Registers of the serial port, and its input.
    pub(crate) serial: SerialRegisters,
    /// The guest wants to hear that it is a copy.
    pub(crate) is_generation_asked: bool,
    /// The virtio devices in the order of their addresses.
    pub(crate) transports: Vec<TransportState>,
    /// The streams.
    pub(crate) vsock: Vec<u8>,
}

/// The registers of a 16550A; its input buffer is empty, for nobody types.
pub(crate) type SerialRegisters = [u8; 9];

impl MachineState {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(32 << 10));
        out.bytes(&MAGIC);
        out.u32(STATE_VERSION);
        out.u64(self.memory_bytes);
        out.u64(self.clock_ns);
        out.list(&self.cpuid);
        out.count(self.vcpus.len());
        for vcpu in &self.vcpus {
            vcpu.encode(&mut out);
        }
        self.devices.encode(&mut out);
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        if bytes.len() > STATE_BYTES {
            return Err(StateError::Limit {
                what: "bytes",
                found: bytes.len(),
                limit: STATE_BYTES,
            });
        }
        let mut from = Reader(bytes);
        if from.array::<8>()? != MAGIC {
            return Err(StateError::Magic);
        }
        let found = from.u32()?;
        if found != STATE_VERSION {
            return Err(StateError::Version {
                found,
                known: STATE_VERSION,
            });
        }
        let memory_bytes = from.u64()?;
        let clock_ns = from.u64()?;
        let cpuid = from.list("CPUID entries", CPUID_ENTRIES)?;
        let count = from.count("virtual processors", usize::from(VCPUS_MAX))?;
        if count == 0 {
            return Err(StateError::Device {
                what: "number of virtual processors",
            });
        }
        let vcpus = (0..count)
            .map(|_| VcpuState::decode(&mut from))
            .collect::<Result<_, _>>()?;
        let devices = DevicesState::decode(&mut from)?;
        if !from.0.is_empty() {
            return Err(StateError::Rest {
                bytes: from.0.len(),
            });
        }
        Ok(Self {
            memory_bytes,
            clock_ns,
            cpuid,
            vcpus,
            devices,
        })
    }
}

impl VcpuState {
    fn encode(&self, out: &mut Writer) {
        out.u32(self.tsc_khz);
        out.plain(&self.mp_state);
        out.plain(&self.regs);
        out.plain(&self.sregs);
        out.blob(&self.xsave);
        out.plain(&self.xcrs);
        out.plain(&self.debug);
        out.plain(&self.lapic);
        out.list(&self.msrs);
        out.plain(&self.events);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            tsc_khz: from.u32()?,
            mp_state: from.plain()?,
            regs: from.plain()?,
            sregs: from.plain()?,
            xsave: from.blob("bytes of extended state", XSAVE_BYTES)?,
            xcrs: from.plain()?,
            debug: from.plain()?,
            lapic: from.plain()?,
            msrs: from.list("model-specific registers", MSR_ENTRIES)?,
            events: from.plain()?,
        })
    }
}

impl DevicesState {
    fn encode(&self, out: &mut Writer) {
        out.u32(self.ioapic.id);
        out.u32(u32::from(self.ioapic.select));
        for entry in self.ioapic.table {
            out.u64(entry);
        }
        out.u32(self.ioapic.pending);
        out.bytes(&self.serial);
        out.bytes(&u16::from(self.is_generation_asked).to_le_bytes());
        out.count(self.transports.len());
        for transport in &self.transports {
            encode_transport(transport, out);
        }
        out.blob(&self.vsock);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        let id = from.u32()?;
        let select = u8::try_from(from.u32()?).map_err(|_| StateError::Device {
            what: "selected register of the interrupt controller",
        })?;
        let mut table = [0; LINES];
        for entry in &mut table {
            *entry = from.u64()?;
        }
        let ioapic = IoapicState {
            id,
            select,
            table,
            pending: from.u32()?,
        };
        let serial = from.array()?;
        let is_generation_asked = flag(u16::from_le_bytes(from.array()?))?;
        let count = from.count("virtio devices", 8)?;
        let transports = (0..count)
            .map(|_| decode_transport(from))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            ioapic,
            serial,
            is_generation_asked,
            transports,
            vsock: from.blob("bytes of streams", 1 << 20)?,
        })
    }
}

fn encode_transport(transport: &TransportState, out: &mut Writer) {
    out.u64(transport.driver_features);
    for word in [
        transport.device_features_select,
        transport.driver_features_select,
        transport.queue_select,
        transport.interrupt_status,
        transport.status,
    ] {
        out.u32(word);
    }
    out.count(transport.queues.len());
    for queue in &transport.queues {
        for half in [
            queue.max_size,
            queue.next_avail,
            queue.next_used,
            queue.size,
            u16::from(queue.event_idx_enabled),
            u16::from(queue.ready),
        ] {
            out.bytes(&half.to_le_bytes());
        }
        for address in [queue.desc_table, queue.avail_ring, queue.used_ring] {
            out.u64(address);
        }
    }
}

fn decode_transport(from: &mut Reader<'_>) -> Result<TransportState, StateError> {
    let driver_features = from.u64()?;
    let mut words = [0; 5];
    for word in &mut words {
        *word = from.u32()?;
    }
    let [
        device_features_select,
        driver_features_select,
        queue_select,
        interrupt_status,
        status,
    ] = words;
    let count = from.count("queues", QUEUES_MAX)?;
    let mut queues = Vec::with_capacity(count);
    for _ in 0..count {
        let mut halves = [0; 6];
        for half in &mut halves {
            *half = u16::from_le_bytes(from.array()?);
        }
        let [max_size, next_avail, next_used, size, event_idx, ready] = halves;
        queues.push(QueueState {
            max_size,
            next_avail,
            next_used,
            event_idx_enabled: flag(event_idx)?,
            size,
            ready: flag(ready)?,
            desc_table: from.u64()?,
            avail_ring: from.u64()?,
            used_ring: from.u64()?,
        });
    }
    Ok(TransportState {
        driver_features,
        device_features_select,
        driver_features_select,
        queue_select,
        interrupt_status,
        status,
        queues,
    })
}

fn flag(half: u16) -> Result<bool, StateError> {
    match half {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(StateError::Device { what: "a flag" }),
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("counts are small"));
    }

    fn plain(&mut self, value: &(impl IntoBytes + Immutable)) {
        self.bytes(value.as_bytes());
    }

    fn list<T: IntoBytes + Immutable>(&mut self, values: &[T]) {
        self.count(values.len());
        self.bytes(values.as_bytes());
    }

    fn blob(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes(bytes);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], StateError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(StateError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        self.take(N)?.try_into().map_err(|_| StateError::Truncated)
    }

    fn u32(&mut self) -> Result<u32, StateError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, StateError> {
        self.array().map(u64::from_le_bytes)
    }

    fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, StateError> {
        let found = self.u32()? as usize;
        if found > limit {
            return Err(StateError::Limit { what, found, limit });
        }
        Ok(found)
    }

    fn plain<T: FromBytes>(&mut self) -> Result<T, StateError> {
        let bytes = self.take(size_of::<T>())?;
        T::read_from_bytes(bytes).map_err(|_| StateError::Truncated)
    }

    fn list<T: FromBytes>(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<Vec<T>, StateError> {
        let count = self.count(what, limit)?;
        (0..count).map(|_| self.plain()).collect()
    }

    fn blob(&mut self, what: &'static str, limit: usize) -> Result<Vec<u8>, StateError> {
        let count = self.count(what, limit)?;
        self.take(count).map(<[u8]>::to_vec)
    }
}
