//! The book that the monitor keeps of what a guest writes, and a second opinion: Linux's page map of the worker and
//! the contents of its memory, read from outside. No page that differs from what it was may be missing.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use vmrepl_machine::{Frozen, GuestMemory, Machine, Page};
use vmrepl_session::Sink as _;
use vmrepl_wire::cell::{Event, Request};

use crate::ground::TEMPLATE;
use crate::lanes::{Heard, Lane, Outcome, is_kvm, tell};
use crate::layers::{Ground, Live};
use crate::transcripts::in_lanes;

/// What memory holds at a freeze, as far as it differs from the base.
pub(crate) type Pages = BTreeMap<u64, Box<Page>>;

/// What one freeze gave.
pub(crate) struct Watched {
    pub(crate) frozen: Frozen,
    pub(crate) changed: Pages,
    /// Noted pages that hold what they held before.
    pub(crate) surplus: usize,
}

/// Freezes a machine, and asks for the second opinion before it runs on. `before` is what memory held at the freeze
/// before.
pub(crate) fn freeze(
    machine: &mut Machine,
    memory: &GuestMemory,
    base: &File,
    before: &Pages,
) -> Watched {
    let mut paused = machine.pause().unwrap();
    let mut changed = Pages::new();
    let frozen = paused
        .freeze(|index, page| drop(changed.insert(index, Box::new(*page))))
        .unwrap();
    let was = |index: u64| {
        before.get(&index).cloned().unwrap_or_else(|| {
            let mut page = Box::new([0; 4096]);
            base.read_exact_at(&mut page[..], index * 4096).unwrap();
            page
        })
    };
    let mut page = [0; 4096];
    for index in memory.written().unwrap() {
        // What was written before and not again is as it was.
        if before.contains_key(&index) && !changed.contains_key(&index) {
            memory.read(index, &mut page).unwrap();
            assert!(
                page == **before.get(&index).unwrap(),
                "page {index} changed again and was not noted"
            );
            continue;
        }
        memory.read(index, &mut page).unwrap();
        match changed.get(&index) {
            Some(noted) => assert!(**noted == page, "page {index} is not what was noted"),
            None => assert!(
                page == *was(index),
                "page {index} changed and was not noted"
            ),
        }
    }
    let same = changed
        .iter()
        .filter(|(index, page)| ***page == *was(**index));
    let surplus = same.count();
    drop(paused);
    Watched {
        frozen,
        changed,
        surplus,
    }
}

/// A machine that is frozen and looked at after every cell.
struct WatchedLane {
    live: Live,
    memory: GuestMemory,
    base: File,
    pages: Pages,
    cells: usize,
    noted: usize,
    surplus: usize,
    name: String,
}

impl WatchedLane {
    fn start(template: &str) -> Self {
        let ground = Ground::at_home(template);
        let live = ground.restore(&ground.base, 10);
        Self {
            memory: ground.outside(&live.machine),
            base: File::open(&ground.hardware.memory_file).unwrap(),
            live,
            pages: Pages::new(),
            cells: 0,
            noted: 0,
            surplus: 0,
            name: template.to_owned(),
        }
    }
}

impl Lane for WatchedLane {
    fn run(&mut self, code: &str) -> Result<Outcome, String> {
        self.cells += 1;
        let request = Request {
            show_tables: true,
            show_table_meta: true,
            timeout_ms: u64::try_from(Duration::from_secs(60).as_millis()).ok(),
            ..Request::streamed(format!("c{}", self.cells), code)
        };
        let mut heard = Heard::default();
        let answer = self.live.run(&request, |event: &Event| heard.event(event));
        self.live.quiesce();
        let watched = freeze(
            &mut self.live.machine,
            &self.memory,
            &self.base,
            &self.pages,
        );
        self.live.wake();
        self.noted += watched.changed.len();
        self.surplus += watched.surplus;
        self.pages.extend(watched.changed);
        Ok(heard.outcome(answer))
    }
}

impl Drop for WatchedLane {
    fn drop(&mut self) {
        tell(&format!(
            "{}: {} cells, {} pages noted, of which {} held what they had held",
            self.name, self.cells, self.noted, self.surplus
        ));
    }
}

#[test]
fn every_cell_of_the_transcripts() {
    if !is_kvm("a book of what a guest writes") {
        return;
    }
    in_lanes(|template| WatchedLane::start(template.unwrap_or(TEMPLATE)));
}
