//! Which pages a restored guest touches before its first answer: seen once, when a template is made, in a machine
//! that is thrown away, and mapped ahead by every restore.
//!
//! Ordering requirements: the memory file is synced and dropped from the page cache before the machine maps it, so
//! that only what is touched is there to be mapped.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vmrepl_machine::{
    Engine, GuestMemory, Hardware, Machine, Purpose, Restore, Restored, encode_hot_pages,
};
use vmrepl_wire::cell::{Event, Request};
use vmrepl_wire::control::ControlReply;
use vmrepl_wire::port;

use crate::error::SessionError;
use crate::guest::{Control, Lines, Waited, parse};
use crate::hygiene;
use crate::interrupt::Running;
use crate::limits::RESUME_DEADLINE;

/// What the first cell after a restore is like.
const FIRST_CELL: &str = "1 + 1";

/// Restores the machine of `state`, has it run a cell, and returns the pages that it touched on the way, in the
/// form that a restore takes.
pub(crate) fn record(
    engine: &Engine,
    hardware: &Hardware,
    state: &[u8],
    generation: u64,
) -> Result<Vec<u8>, SessionError> {
    let failed = |source| SessionError::File {
        verb: "drop from memory:",
        path: hardware.memory_file.display().to_string(),
        source,
    };
    let file = File::open(&hardware.memory_file).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
        .map_err(|errno| failed(errno.into()))?;
    let ports = [port::CONTROL, port::CELLS];
    let restore = Restore {
        state,
        hot: &[],
        purpose: Purpose::Record,
        ports: &ports,
    };
    let machine_error = |step| move |source| SessionError::Machine { step, source };
    let Restored {
        mut machine,
        streams,
    } = Machine::restore(engine, None, hardware, &restore, std::iter::empty())
        .map_err(machine_error("restore the frozen machine"))?;
    machine
        .settle()
        .map_err(machine_error("restore the frozen machine"))?;
    let [control, cells] = streams.try_into().expect("a stream for each port");
    converse(control, cells, generation)?;
    let unseen = |source| SessionError::Machine {
        step: "look at the pages that a restore touches",
        source: vmrepl_machine::MachineError::Pages(source),
    };
    let pid = machine.process_id();
    let memory =
        GuestMemory::open(pid, &hardware.memory_file, hardware.memory_bytes).map_err(unseen)?;
    let touched = memory.touched().map_err(unseen)?;
    let written = memory.written().map_err(unseen)?;
    Ok(encode_hot_pages(&touched, &written))
}

/// What every run begins with: the resume, and a first cell.
fn converse(control: UnixStream, cells: UnixStream, generation: u64) -> Result<(), SessionError> {
    let control = Control::new(control, Arc::default())?;
    let mut cells = Lines::new(cells);
    let resumed =
        hygiene::resumed(generation, vmrepl_wire::control::RngPolicy::Keep).map_err(|source| {
            SessionError::Guest {
                step: "draw entropy for the guest",
                source,
            }
        })?;
    control.tell(&resumed)?;
    let request = Request::streamed("c1", FIRST_CELL);
    cells.send(&request.to_line(), &Running::default())?;
    let until = std::time::Instant::now() + RESUME_DEADLINE;
    control.wait(RESUME_DEADLINE, |reply| {
        matches!(reply, ControlReply::Resumed { .. }).then_some(())
    })?;
    loop {
        match cells.next(Some(until))? {
            Waited::Line(line) => {
                if let Event::Done(_) = parse(&line)? {
                    return Ok(());
                }
            }
            Waited::Closed | Waited::TimedOut => {
                return Err(SessionError::Slow {
                    what: "answer a first cell",
                    seconds: RESUME_DEADLINE.as_secs(),
                    console: "-".to_owned(),
                });
            }
        }
    }
}
