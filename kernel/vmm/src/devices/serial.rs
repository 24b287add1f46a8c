//! The console while Linux boots: a 16550A whose output lands in a file. Nobody types.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial, SerialState};

use crate::limits::CONSOLE_BYTES;
use crate::state::SerialRegisters;

/// Notes that the port wants an interrupt.
#[derive(Debug, Clone, Default)]
struct Line(Arc<AtomicBool>);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// A file that begins anew when it is full: what a guest says last matters, and it can say much.
#[derive(Debug)]
struct Tail {
    file: File,
    written: usize,
}

impl Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written + bytes.len() > CONSOLE_BYTES {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.written = 0;
        }
        self.written += bytes.len();
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Console {
    port: Serial<Line, NoEvents, Tail>,
    line: Line,
}

impl Console {
    pub(crate) fn new(file: File) -> Self {
        let line = Line::default();
        let tail = Tail { file, written: 0 };
        Self {
            port: Serial::new(line.clone(), tail),
            line,
        }
    }

    pub(crate) fn read(&mut self, offset: u16) -> u8 {
        u8::try_from(offset).map_or(0, |offset| self.port.read(offset))
    }

    /// True when the port raises its line.
    pub(crate) fn write(&mut self, offset: u16, byte: u8) -> bool {
        if let Ok(offset) = u8::try_from(offset) {
            // A console that cannot be written loses words, not the machine.
            drop(self.port.write(offset, byte));
        }
        self.line.0.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn state(&self) -> SerialRegisters {
        let state = self.port.state();
        [
            state.baud_divisor_low,
            state.baud_divisor_high,
            state.interrupt_enable,
            state.interrupt_identification,
            state.line_control,
            state.line_status,
            state.modem_control,
            state.modem_status,
            state.scratch,
        ]
    }

    pub(crate) fn set_state(&mut self, registers: SerialRegisters) {
        let [
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
        ] = registers;
        let state = SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer: Vec::new(),
        };
        let writer = self.port.writer_mut();
        let Ok(file) = writer.file.try_clone() else {
            return;
        };
        let tail = Tail {
            file,
            written: writer.written,
        };
        if let Ok(port) = Serial::from_state(&state, self.line.clone(), NoEvents, tail) {
            self.port = port;
        }
        self.line.0.store(false, Ordering::Relaxed);
    }
}
