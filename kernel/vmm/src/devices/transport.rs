//! The registers of a virtio device in memory: how a driver finds it, agrees on features, and gives it its
//! queues.
//!
//! Standard: virtio 1.2, 4.2 (virtio over MMIO), 2.1 (status), 2.2 (features); version 2 registers only.

use virtio_queue::{Queue, QueueState, QueueT as _};

use crate::devices::{Broken, StateError};
use crate::limits::QUEUE_SIZE;
use crate::ram::Memory;

const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"VMRL");

/// `VIRTIO_F_VERSION_1`: no legacy drivers.
pub(crate) const FEATURE_VERSION_1: u64 = 1 << 32;

/// Bits of the status register that a driver sets; the device has none of its own to set here.
const STATUS_ACKNOWLEDGE: u32 = 1;
const STATUS_DRIVER: u32 = 2;
pub(crate) const STATUS_DRIVER_OK: u32 = 4;
pub(crate) const STATUS_FEATURES_OK: u32 = 8;
const STATUS_FAILED: u32 = 128;
const STATUS_BITS: u32 =
    STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK | STATUS_FEATURES_OK | STATUS_FAILED;

/// Bit of the interrupt status: a queue has used buffers.
pub(crate) const INTERRUPT_QUEUE: u32 = 1;

mod register {
    pub(super) const MAGIC: u64 = 0x000;
    pub(super) const VERSION: u64 = 0x004;
    pub(super) const DEVICE: u64 = 0x008;
    pub(super) const VENDOR: u64 = 0x00c;
    pub(super) const DEVICE_FEATURES: u64 = 0x010;
    pub(super) const DEVICE_FEATURES_SELECT: u64 = 0x014;
    pub(super) const DRIVER_FEATURES: u64 = 0x020;
    pub(super) const DRIVER_FEATURES_SELECT: u64 = 0x024;
    pub(super) const QUEUE_SELECT: u64 = 0x030;
    pub(super) const QUEUE_SIZE_MAX: u64 = 0x034;
    pub(super) const QUEUE_SIZE: u64 = 0x038;
    pub(super) const QUEUE_READY: u64 = 0x044;
    pub(super) const QUEUE_NOTIFY: u64 = 0x050;
    pub(super) const INTERRUPT_STATUS: u64 = 0x060;
    pub(super) const INTERRUPT_ACKNOWLEDGE: u64 = 0x064;
    pub(super) const STATUS: u64 = 0x070;
    pub(super) const QUEUE_DESCRIPTORS_LOW: u64 = 0x080;
    pub(super) const QUEUE_DESCRIPTORS_HIGH: u64 = 0x084;
    pub(super) const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub(super) const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub(super) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub(super) const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub(super) const CONFIG_GENERATION: u64 = 0x0fc;
    pub(super) const CONFIG: u64 = 0x100;
}

/// What a write to the registers asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Nothing,
    /// A queue has new buffers.
    Notify(usize),
    /// The driver is up: it may have filled its queues before.
    Start,
    /// The driver has given the device up; it is to forget what it was doing.
    Reset,
}

/// What the registers remember, as plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TransportState {
    pub(crate) driver_features: u64,
    pub(crate) device_features_select: u32,
    pub(crate) driver_features_select: u32,
    pub(crate) queue_select: u32,
    pub(crate) interrupt_status: u32,
    pub(crate) status: u32,
    pub(crate) queues: Vec<QueueState>,
}

/// One device's registers.
#[derive(Debug)]
pub(crate) struct Transport {
    device: u32,
    features: u64,
    driver_features: u64,
    device_features_select: u32,
    driver_features_select: u32,
    queue_select: u32,
    interrupt_status: u32,
    status: u32,
    pub(crate) queues: Vec<Queue>,
}

impl Transport {
    pub(crate) fn new(device: u32, features: u64, queues: usize) -> Self {
        Self {
            device,
            features: features | FEATURE_VERSION_1,
            driver_features: 0,
            device_features_select: 0,
            driver_features_select: 0,
            queue_select: 0,
            interrupt_status: 0,
            status: 0,
            queues: (0..queues).map(|_| new_queue()).collect(),
        }
    }

    /// Whether the driver is up and the device may use its queues.
    pub(crate) fn is_live(&self) -> bool {
        self.status & (STATUS_DRIVER_OK | STATUS_FAILED) == STATUS_DRIVER_OK
    }

    /// Notes an interrupt for used buffers.
    pub(crate) fn interrupt(&mut self) {
        self.interrupt_status |= INTERRUPT_QUEUE;
    }

    pub(crate) fn read(&self, offset: u64, config: &[u8], data: &mut [u8]) {
        data.fill(0);
        if offset >= register::CONFIG {
            let start = usize::try_from(offset - register::CONFIG).unwrap_or(usize::MAX);
            let bytes = config.get(start..).unwrap_or_default();
            for (to, from) in data.iter_mut().zip(bytes) {
                *to = *from;
            }
            return;
        }
        let value = self.register(offset);
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    fn register(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.queue_select as usize);
        match offset {
            register::MAGIC => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE => self.device,
            register::VENDOR => VENDOR,
            register::DEVICE_FEATURES => half(self.features, self.device_features_select),
            register::QUEUE_SIZE_MAX => queue.map_or(0, |queue| u32::from(queue.max_size())),
            register::QUEUE_READY => queue.map_or(0, |queue| u32::from(queue.ready())),
            register::INTERRUPT_STATUS => self.interrupt_status,
            register::STATUS => self.status,
            register::CONFIG_GENERATION => 0,
            _ => 0,
        }
    }

    pub(crate) fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        memory: &Memory,
    ) -> Result<Asked, Broken> {
        // Registers are 32 bits wide; configuration space is read-only here.
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return Ok(Asked::Nothing);
        };
        let value = u32::from_le_bytes(bytes);
        match offset {
            register::DEVICE_FEATURES_SELECT => self.device_features_select = value,
            register::DRIVER_FEATURES_SELECT => self.driver_features_select = value,
            register::DRIVER_FEATURES if self.status & STATUS_FEATURES_OK == 0 => {
                self.set_features(value);
            }
            register::QUEUE_SELECT => self.queue_select = value,
            register::QUEUE_NOTIFY => return Ok(Asked::Notify(value as usize)),
            register::INTERRUPT_ACKNOWLEDGE => self.interrupt_status &= !value,
            register::STATUS => return self.set_status(value, memory),
            // From "driver OK" to the next reset a queue stays as it was checked.
            register::QUEUE_SIZE..=register::QUEUE_DEVICE_HIGH
                if self.status & STATUS_DRIVER_OK == 0 =>
            {
                self.set_queue(offset, value);
            }
            _ => {}
        }
        Ok(Asked::Nothing)
    }

    fn set_features(&mut self, value: u32) {
        let (keep, shift) = match self.driver_features_select {
            0 => (!0xffff_ffff, 0),
            1 => (0xffff_ffff, 32),
            _ => return,
        };
        self.driver_features = (self.driver_features & keep) | (u64::from(value) << shift);
    }

    fn set_queue(&mut self, offset: u64, value: u32) {
        let Some(queue) = self.queues.get_mut(self.queue_select as usize) else {
            return;
        };
        let (low, high) = (Some(value), Some(value));
        match offset {
            register::QUEUE_SIZE => queue.set_size(u16::try_from(value).unwrap_or(0)),
            register::QUEUE_READY => queue.set_ready(value == 1),
            register::QUEUE_DESCRIPTORS_LOW => queue.set_desc_table_address(low, None),
            register::QUEUE_DESCRIPTORS_HIGH => queue.set_desc_table_address(None, high),
            register::QUEUE_DRIVER_LOW => queue.set_avail_ring_address(low, None),
            register::QUEUE_DRIVER_HIGH => queue.set_avail_ring_address(None, high),
            register::QUEUE_DEVICE_LOW => queue.set_used_ring_address(low, None),
            register::QUEUE_DEVICE_HIGH => queue.set_used_ring_address(None, high),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32, memory: &Memory) -> Result<Asked, Broken> {
        if value == 0 {
            *self = Self::new(self.device, self.features, self.queues.len());
            return Ok(Asked::Reset);
        }
        // Bits are only added: what was agreed and checked holds until a reset.
        let mut value = self.status | (value & STATUS_BITS);
        // A driver that wants what is not offered, or a legacy one, finds its FEATURES_OK gone.
        if value & STATUS_FEATURES_OK == 0 || !self.features_agree() {
            value &= !(STATUS_FEATURES_OK | STATUS_DRIVER_OK);
        }
        let starts = value & STATUS_DRIVER_OK != 0 && self.status & STATUS_DRIVER_OK == 0;
        self.status = value;
        if starts {
            // Checked once: a queue cannot be changed while the driver is up.
            let used = self.queues.iter().filter(|queue| queue.ready());
            for queue in used {
                if !queue.is_valid(memory) {
                    return Err(Broken::new(
                        "a driver gave a queue that does not lie in memory",
                    ));
                }
            }
            return Ok(Asked::Start);
        }
        Ok(Asked::Nothing)
    }

    fn features_agree(&self) -> bool {
        agree(self.driver_features, self.features)
    }

    /// The registers that tell where driver and device stand.
    pub(crate) fn condition(&self) -> String {
        format!(
            "status {:#x}, interrupt {}",
            self.status, self.interrupt_status
        )
    }

    pub(crate) fn state(&self) -> TransportState {
        TransportState {
            driver_features: self.driver_features,
            device_features_select: self.device_features_select,
            driver_features_select: self.driver_features_select,
            queue_select: self.queue_select,
            interrupt_status: self.interrupt_status,
            status: self.status,
            queues: self.queues.iter().map(Queue::state).collect(),
        }
    }

    /// Takes a state of untrusted origin.
    pub(crate) fn set_state(
        &mut self,
        state: &TransportState,
        memory: &Memory,
    ) -> Result<(), StateError> {
        let wrong = |what| StateError::Device { what };
        if state.queues.len() != self.queues.len() {
            return Err(wrong("number of queues"));
        }
        let agreed = agree(state.driver_features, self.features);
        let needs = STATUS_FEATURES_OK | STATUS_DRIVER_OK;
        if state.status & needs != 0 && (state.status & STATUS_FEATURES_OK == 0 || !agreed) {
            return Err(wrong("features"));
        }
        if state.status & !STATUS_BITS != 0 || state.interrupt_status & !INTERRUPT_QUEUE != 0 {
            return Err(wrong("status"));
        }
        let mut queues = Vec::with_capacity(state.queues.len());
        for queue in &state.queues {
            if queue.max_size != QUEUE_SIZE || queue.event_idx_enabled {
                return Err(wrong("size of a queue"));
            }
            let queue = Queue::try_from(*queue).map_err(|_| wrong("place of a queue"))?;
            // Of a driver that is not up yet it will be checked when it is.
            let is_up = state.status & STATUS_DRIVER_OK != 0;
            if is_up && queue.ready() && !queue.is_valid(memory) {
                return Err(wrong("place of a queue"));
            }
            queues.push(queue);
        }
        self.driver_features = state.driver_features;
        self.device_features_select = state.device_features_select;
        self.driver_features_select = state.driver_features_select;
        self.queue_select = state.queue_select;
        self.interrupt_status = state.interrupt_status;
        self.status = state.status;
        self.queues = queues;
        Ok(())
    }
}

/// Whether a driver may go on with what it wants of what is offered.
fn agree(wanted: u64, offered: u64) -> bool {
    wanted & !offered == 0 && wanted & FEATURE_VERSION_1 != 0
}

fn new_queue() -> Queue {
    Queue::new(QUEUE_SIZE).expect("the size is a power of two")
}

/// One half of a set of 64 features.
fn half(features: u64, select: u32) -> u32 {
    let bytes = features.to_le_bytes();
    let (low, high) = bytes.split_first_chunk::<4>().expect("eight bytes");
    match select {
        0 => u32::from_le_bytes(*low),
        1 => u32::from_le_bytes(high.try_into().expect("four bytes")),
        _ => 0,
    }
}
