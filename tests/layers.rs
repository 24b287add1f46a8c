//! A machine that is frozen as a layer over its template, and restored from both.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use vmrepl_machine::{Engine, GuestMemory, Hardware, Machine, Page, Purpose, Restore, Restored};
use vmrepl_session::{EngineKind, Template, TemplateName, engine_for};
use vmrepl_snapshots::{SnapshotId, Store, StoreError};
use vmrepl_wire::cell::{Answer, Event, Request};
use vmrepl_wire::control::{ControlRequest, Entropy, RngPolicy};
use vmrepl_wire::line::to_line;
use vmrepl_wire::port;

use crate::disk::Copy;
use crate::ground::{DEADLINE, TEMPLATE, home};
use crate::lanes::{engine_choice, places_in};
use crate::process::Run;

const MACHINE: &str = "machine";

/// For making a template under emulation on a busy host.
const PREPARED: Duration = Duration::from_secs(300);

/// A state and pages.
pub(crate) type Read = (Vec<u8>, Vec<(u64, Box<Page>)>);

/// A store of its own with the template in it, and what its machines are made of.
pub(crate) struct Ground {
    folder: PathBuf,
    _copy: Option<Copy>,
    pub(crate) store: Store,
    pub(crate) engine: Engine,
    pub(crate) hardware: Hardware,
    pub(crate) base: SnapshotId,
}

impl Ground {
    pub(crate) fn new() -> Self {
        Self::within(Copy::new(), TEMPLATE)
    }

    /// With a template that has a fourth of the memory.
    pub(crate) fn small() -> Self {
        Self::prepared("small", include_str!("recipes/small.toml"))
    }

    /// With a template that has two processors.
    pub(crate) fn two_processors() -> Self {
        Self::prepared("two", include_str!("recipes/two.toml"))
    }

    fn prepared(name: &str, recipe: &str) -> Self {
        let copy = Copy::empty();
        let path = copy.home().join(format!("{name}.toml"));
        std::fs::write(&path, recipe).unwrap();
        let words = [OsStr::new("prepare"), path.as_os_str()];
        let ended = Run::bare(words)
            .env("VMREPL_HOME", copy.home())
            .deadline(PREPARED)
            .finish();
        assert_eq!(ended.exit(), 0, "{ended}");
        Self::within(copy, name)
    }

    /// Over a template that all tests share: nothing is to be published.
    pub(crate) fn at_home(template: &str) -> Self {
        Self::of(home(), template, None)
    }

    fn within(copy: Copy, template: &str) -> Self {
        let home = copy.home().to_owned();
        Self::of(&home, template, Some(copy))
    }

    fn of(home: &Path, template: &str, copy: Option<Copy>) -> Self {
        let places = places_in(home);
        let name = TemplateName::new(template).unwrap();
        let engine = engine_for(&places, engine_choice(), &name).unwrap();
        let template = Template::open(&places, &name, EngineKind::of(&engine)).unwrap();
        let store = Store::open(&places.store).unwrap();
        let base = store.snapshot(&template.id()).unwrap();
        let hardware = Hardware {
            memory_bytes: template.memory_bytes(),
            vcpus: template.record.vcpus,
            memory_file: base.memory_path().unwrap(),
            root: template.root().to_owned(),
        };
        Self {
            base: template.id(),
            folder: places.store.join("snapshots"),
            _copy: copy,
            store,
            engine,
            hardware,
        }
    }

    /// The memory of a machine, seen from outside.
    pub(crate) fn outside(&self, machine: &Machine) -> GuestMemory {
        let Hardware {
            memory_file,
            memory_bytes,
            ..
        } = &self.hardware;
        GuestMemory::open(machine.process_id(), memory_file, *memory_bytes).unwrap()
    }

    /// The state of a snapshot, and the pages of all its layers.
    pub(crate) fn read(&self, id: &SnapshotId) -> Read {
        self.try_read(id).unwrap()
    }

    pub(crate) fn try_read(&self, id: &SnapshotId) -> Result<Read, StoreError> {
        let chain = self.store.chain(id)?;
        let state = chain.tip().read_section(MACHINE)?.bytes;
        let mut pages: Vec<(u64, Box<Page>)> = Vec::new();
        chain.sound_pages()?.for_each(|index, page| {
            pages.push((index, Box::new(*page)));
            Ok::<(), StoreError>(())
        })?;
        Ok((state, pages))
    }

    /// Where a snapshot's files lie.
    pub(crate) fn folder_of(&self, id: &SnapshotId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// Restores a snapshot with all the layers below it.
    pub(crate) fn restore(&self, id: &SnapshotId, generation: u64) -> Live {
        let (state, pages) = self.read(id);
        let over = pages.iter().map(|(index, page)| (*index, &**page));
        let restore = as_a_session(&state);
        let restored =
            Machine::restore(&self.engine, None, &self.hardware, &restore, over).unwrap();
        Live::resume(restored, generation)
    }

    /// Freezes a machine as a layer over `parent`. It runs on afterwards.
    pub(crate) fn freeze(&self, live: &mut Live, parent: &SnapshotId) -> (SnapshotId, usize) {
        live.quiesce();
        let mut paused = live.machine.pause().unwrap();
        let mut pages: Vec<(u64, Box<Page>)> = Vec::new();
        let state = paused
            .freeze(|index, page| pages.push((index, Box::new(*page))))
            .unwrap()
            .state;
        drop(paused);
        live.wake();
        let mut draft = self.store.layer_draft(parent).unwrap();
        draft.section(MACHINE, 1, &state).unwrap();
        let id = draft
            .publish(pages.iter().map(|(index, page)| (*index, &**page)))
            .unwrap();
        (id, pages.len())
    }
}

/// What a session is restored from.
pub(crate) fn as_a_session(state: &[u8]) -> Restore<'_> {
    Restore {
        state,
        hot: &[],
        purpose: Purpose::Freeze,
        ports: &[port::CONTROL, port::CELLS],
    }
}

/// A machine with its two conversations.
pub(crate) struct Live {
    pub(crate) machine: Machine,
    control: Talk,
    cells: Talk,
}

struct Talk(BufReader<UnixStream>);

impl Talk {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, line: &[u8]) {
        self.0.get_mut().write_all(line).unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }
}

impl Talk {
    /// The reply of this kind; what the agent says unasked passes by.
    fn hear_of(&mut self, op: &str) -> Value {
        loop {
            let reply = self.hear();
            assert_ne!(reply["op"], "error", "{reply}");
            if reply["op"] == op {
                return reply;
            }
        }
    }
}

impl Live {
    fn resume(restored: Restored, generation: u64) -> Self {
        let [control, cells] = restored.streams.try_into().unwrap();
        let mut live = Self {
            machine: restored.machine,
            control: Talk::new(control),
            cells: Talk::new(cells),
        };
        live.resumed(generation);
        live
    }

    /// Tells the guest that it is a copy, and waits until it is one of its own.
    pub(crate) fn resumed(&mut self, generation: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let entropy = [u8::try_from(now.subsec_nanos() % 251).unwrap(); 64];
        self.control.say(&to_line(&ControlRequest::Resumed {
            generation,
            entropy: Entropy::new(entropy),
            realtime_ns: u64::try_from(now.as_nanos()).unwrap(),
            hostname: None,
            rng: RngPolicy::Keep,
        }));
        self.control.hear_of("resumed");
    }

    /// Tells the guest that it goes on after a freeze.
    pub(crate) fn wake(&mut self) {
        self.control.say(&to_line(&ControlRequest::Wake));
    }

    /// Runs a cell in the plain form and returns the `repr` of its value.
    #[track_caller]
    pub(crate) fn value(&mut self, code: &str) -> String {
        self.cells
            .say(format!("{}\n", json!({ "code": code })).as_bytes());
        let answer = self.cells.hear();
        assert_eq!(answer["exit_code"], 0, "{answer}");
        answer["result_repr"].as_str().unwrap_or("").to_owned()
    }

    /// Runs a cell in the streamed form.
    pub(crate) fn run(&mut self, request: &Request, mut each: impl FnMut(&Event)) -> Answer {
        self.cells.say(&request.to_line());
        loop {
            match serde_json::from_value(self.cells.hear()).unwrap() {
                Event::Done(answer) => return *answer,
                event => each(&event),
            }
        }
    }

    pub(crate) fn quiesce(&mut self) {
        self.control.say(&to_line(&ControlRequest::Quiesce));
        let reply = self.control.hear_of("quiesced");
        assert!(reply["busy"].is_null(), "{reply}");
        assert!(
            reply["runner_rss_bytes"].as_u64() > Some(8 << 20),
            "{reply}"
        );
    }
}

/// Twenty megabytes that no compression makes small, and their checksum.
const FILL: &str = "import hashlib, random\nrandom.seed(7)\nbig = random.randbytes(20 << 20)\n\
                    hashlib.sha256(big).hexdigest()";
const SUM: &str = "hashlib.sha256(big).hexdigest()";

#[test]
fn a_session_is_frozen_and_restored_layer_by_layer() {
    let ground = Ground::new();
    let mut live = ground.restore(&ground.base, 2);
    let sum = live.value(FILL);
    live.value("x = 41\nx");
    let (first, written) = ground.freeze(&mut live, &ground.base);
    assert!(written >= 5120, "20 MB are more than {written} pages");
    // What was frozen goes on, over the same streams.
    assert_eq!(live.value("x += 100; x"), "141");
    let (second, _) = ground.freeze(&mut live, &first);
    assert_eq!(live.value("x"), "141");
    drop(live);

    let mut copy = ground.restore(&first, 3);
    assert_eq!(copy.value("x"), "41");
    assert_eq!(copy.value(SUM), sum);
    let mut sibling = ground.restore(&first, 3);
    assert_eq!(sibling.value("x += 1; x"), "42");
    assert_eq!(copy.value("x"), "41", "siblings share nothing");
    let mut later = ground.restore(&second, 4);
    assert_eq!(later.value("x"), "141");
    assert_eq!(later.value(SUM), sum);
    // A layer of a restored layer.
    let (third, _) = ground.freeze(&mut sibling, &first);
    drop((copy, sibling, later));
    let mut grandchild = ground.restore(&third, 4);
    assert_eq!(grandchild.value("x, len(big)"), "(42, 20971520)");
    assert_eq!(grandchild.value(SUM), sum);
}

#[test]
fn the_base_stays_as_it_was() {
    let ground = Ground::new();
    let mut live = ground.restore(&ground.base, 2);
    live.value("x = 1\nbig = bytearray(b'x') * (64 << 20)\nlen(big)");
    let (layer, _) = ground.freeze(&mut live, &ground.base);
    drop(live);
    let mut fresh = ground.restore(&ground.base, 2);
    assert_eq!(fresh.value("'x' in globals()"), "False");
    drop(fresh);
    for id in [ground.base, layer] {
        let report = ground.store.verify(&id).unwrap();
        assert!(report.damage.is_empty(), "{report:?}");
    }
}
