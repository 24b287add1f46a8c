//! Making a template: boot an image, warm it, freeze it, publish it.
//!
//! Ordering requirements:
//! 1. The guest is quiet (`Quiesce` acknowledged) before it is paused: bytes in the channel are in no
//!    snapshot.
//! 2. The engine has exited before the draft is published: nothing writes into the memory any more.
//! 3. The name moves last, so that a reader finds the old template or the new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use vmrepl_machine::{Boot, Engine, Hardware, Machine, MachineError, counter_khz};
use vmrepl_snapshots::{SnapshotId, Store};
use vmrepl_wire::cell::{Answer, Event};
use vmrepl_wire::control::{ControlReply, ControlRequest};
use vmrepl_wire::languages::Language;
use vmrepl_wire::port;

use crate::care::needed_by;
use crate::error::SessionError;
use crate::guest::{Control, Lines, Waited, parse};
use crate::hygiene;
use crate::interrupt::Running;
use crate::kind::EngineKind;
use crate::limits::WARM_DEADLINE;
use crate::places::Places;
use crate::template::{
    HOT, HOT_VERSION, MACHINE, RECORD, RECORD_VERSION, Template, TemplateName, TemplateRecord,
    facts, names_for, open_store,
};

/// A built image, as plain data.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// The recipe's name, which names the template.
    pub recipe: String,
    /// Identifies it.
    pub digest: String,
    /// Linux, as an ELF with a PVH entry.
    pub vmlinux: PathBuf,
    /// The initial RAM file system with the agent.
    pub initramfs: PathBuf,
    /// The root file system, inside the folder of images.
    pub root: PathBuf,
    /// Its BLAKE3 checksum, in hexadecimal.
    pub root_blake3: String,
    /// Words for Linux's command line.
    pub command_line: String,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Number of virtual processors.
    pub vcpus: u8,
    /// What cells are written in.
    pub language: Language,
    /// Code that is run before the freeze, so that the first cell finds everything warm.
    pub warm: Vec<String>,
    /// What each cell may take, as [`Limits::set`](crate::Limits::set) understands it.
    pub limits: Vec<String>,
    /// The guest's Linux release.
    pub linux: String,
    /// Names and versions of what is in it.
    pub packages: Vec<String>,
}

/// What preparing is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrepareStep {
    /// A guest did not get ready on KVM; emulation takes its place.
    Emulate {
        /// How it ended, in one line.
        why: String,
    },
    /// Linux and the interpreter come up.
    Boot {
        /// What runs them.
        engine: EngineKind,
    },
    /// One warm-up cell of so many runs.
    Warm {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// The machine is paused and saved.
    Freeze,
    /// Memory is made sparse, summed, synced and published.
    Publish,
}

/// A template that is there now.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Its name.
    pub name: TemplateName,
    /// The engine that it is for.
    pub engine: EngineKind,
    /// Its snapshot.
    pub id: SnapshotId,
    /// Whether it was there already, made of the same image on the same engine.
    pub cached: bool,
}

/// Why a template was not made.
#[derive(Debug)]
pub(crate) enum NotMade {
    /// The guest did not get as far as a ready runner, and nobody stopped it.
    Unready(SessionError),
    /// Anything else.
    Other(SessionError),
}

impl From<SessionError> for NotMade {
    fn from(error: SessionError) -> Self {
        Self::Other(error)
    }
}

impl From<NotMade> for SessionError {
    fn from(not_made: NotMade) -> Self {
        match not_made {
            NotMade::Unready(error) | NotMade::Other(error) => error,
        }
    }
}

/// What is to run, and how long it may take to come up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) image: &'a BuiltImage,
    pub(crate) boot_deadline: Duration,
}

/// Whether a template of this image for this engine is there already.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn find_prepared(
    places: &Places,
    plan: &Plan<'_>,
    name: &TemplateName,
) -> Result<Option<Prepared>, SessionError> {
    let engine = EngineKind::of(plan.engine);
    match Template::open(places, name, engine) {
        Ok(template) => {
            let same = template.record.image_digest == plan.image.digest
                && template.hardware(plan.engine).is_ok();
            Ok(same.then(|| Prepared {
                name: name.clone(),
                engine,
                id: template.id(),
                cached: true,
            }))
        }
        Err(SessionError::NoTemplate { .. }) => Ok(None),
        // A damaged template is made anew.
        Err(SessionError::Store(_) | SessionError::Section { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Boots an image until its runner is ready, and ends it: whether this engine can.
///
/// # Errors
/// When it does not get ready.
pub(crate) fn prove(
    places: &Places,
    plan: &Plan<'_>,
    progress: &mut dyn FnMut(PrepareStep),
    cancel: &AtomicBool,
) -> Result<(), NotMade> {
    let store = open_store(places)?;
    let draft = store
        .base_draft(plan.image.memory_bytes)
        .map_err(SessionError::Store)?;
    let hardware = hardware(plan.image, draft.memory_path());
    boot_until_ready(plan, &hardware, progress, cancel).map(drop)
}

/// Boots, warms, freezes and publishes an image as the template `name`.
///
/// # Errors
/// When a step fails or `cancel` is set; the store is then as before.
pub(crate) fn make(
    places: &Places,
    plan: &Plan<'_>,
    name: &TemplateName,
    progress: &mut dyn FnMut(PrepareStep),
    cancel: &AtomicBool,
) -> Result<Prepared, NotMade> {
    let (engine, image) = (plan.engine, plan.image);
    let store = open_store(places)?;
    store.sweep().map_err(SessionError::Store)?;
    let root = image
        .root
        .strip_prefix(&places.images)
        .map_err(|_| SessionError::File {
            verb: "find in the folder of images:",
            path: image.root.display().to_string(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
    let root_bytes = length(&image.root)?;
    let mut draft = store
        .base_draft(image.memory_bytes)
        .map_err(SessionError::Store)?;
    let hardware = hardware(image, draft.memory_path());
    let (machine, control) = boot_until_ready(plan, &hardware, progress, cancel)?;
    let state = freeze_warm(machine, &control, image, progress, cancel)?;
    let hot = match engine {
        Engine::Kvm(_) => crate::hot::record(engine, &hardware, &state, LAST_GENERATION + 1)?,
        Engine::Qemu(_) => Vec::new(),
    };
    progress(PrepareStep::Publish);
    let record = TemplateRecord {
        recipe: image.recipe.clone(),
        image_digest: image.digest.clone(),
        root: root.to_owned(),
        root_bytes,
        root_blake3: image.root_blake3.clone(),
        vcpus: image.vcpus,
        linux: image.linux.clone(),
        created_s: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| age.as_secs()),
        generation: LAST_GENERATION,
        counter_khz: if engine.counts_host_clock() {
            counter_khz()
        } else {
            0
        },
        packages: image.packages.clone(),
        limits: image.limits.clone(),
        language: image.language,
    };
    let record = serde_json::to_vec(&record).expect("a record holds only text and numbers");
    draft
        .section(MACHINE, vmrepl_machine::STATE_VERSION, &state)
        .map_err(SessionError::Store)?;
    draft
        .section(RECORD, RECORD_VERSION, &record)
        .map_err(SessionError::Store)?;
    if !hot.is_empty() {
        draft
            .section(HOT, HOT_VERSION, &hot)
            .map_err(SessionError::Store)?;
    }
    check(cancel)?;
    let id = draft
        .publish(&facts(engine, image.memory_bytes))
        .map_err(SessionError::Store)?;
    let engine = EngineKind::of(engine);
    point_name(places, &store, name, engine, id)?;
    Ok(Prepared {
        name: name.clone(),
        engine,
        id,
        cached: false,
    })
}

/// The generation of the resume that follows the first boot.
const FIRST_GENERATION: u64 = 1;
/// The last one before the freeze. The way that a restore takes is walked twice: the first time makes
/// what the second one finds.
const LAST_GENERATION: u64 = 3;
/// What the first cell after a restore is likely to do, streamed as it will be.
fn rehearsal(language: Language) -> [&'static str; 4] {
    match language {
        Language::JavaScript => ["1 + 1", "x = 1", "process.stdout.write('')", ""],
        Language::Bash => ["true", "x=1", "printf ''", "ls / > /dev/null"],
        _ => ["1 + 1", "x = 1", "print(end='')", "pass"],
    }
}

/// Lets `name` mean `id` for an engine, and removes what it meant before, unless something depends on it.
pub(crate) fn point_name(
    places: &Places,
    store: &Store,
    name: &TemplateName,
    engine: EngineKind,
    id: SnapshotId,
) -> Result<(), SessionError> {
    let kind = names_for(engine);
    let before = store
        .resolve(kind, name.as_str())
        .map_err(SessionError::Store)?;
    store
        .set_name(kind, name.as_str(), &id)
        .map_err(SessionError::Store)?;
    if let Some(before) = before.filter(|before| *before != id)
        && store
            .dependents(&before)
            .is_ok_and(|dependents| dependents.is_empty())
        && needed_by(places, &before)?.is_empty()
    {
        store.remove(&before).map_err(SessionError::Store)?;
    }
    Ok(())
}

fn hardware(image: &BuiltImage, memory_file: PathBuf) -> Hardware {
    Hardware {
        memory_bytes: image.memory_bytes,
        vcpus: image.vcpus,
        memory_file,
        root: image.root.clone(),
    }
}

fn machine_error(step: &'static str) -> impl Fn(MachineError) -> SessionError {
    move |source| SessionError::Machine { step, source }
}

fn boot_until_ready(
    plan: &Plan<'_>,
    hardware: &Hardware,
    progress: &mut dyn FnMut(PrepareStep),
    cancel: &AtomicBool,
) -> Result<(Machine, Control), NotMade> {
    progress(PrepareStep::Boot {
        engine: EngineKind::of(plan.engine),
    });
    let boot = Boot {
        vmlinux: plan.image.vmlinux.clone(),
        initramfs: plan.image.initramfs.clone(),
        command_line: plan.image.command_line.clone(),
    };
    let come_up = || {
        let mut machine =
            Machine::boot(plan.engine, hardware, &boot).map_err(machine_error("boot the image"))?;
        let control = machine
            .connect(port::CONTROL)
            .map_err(machine_error("reach the agent"))?;
        let control = Control::new(control, Arc::default())?;
        wait_until_ready(&mut machine, &control, plan.boot_deadline, cancel)?;
        Ok((machine, control))
    };
    come_up().map_err(|error| match error {
        SessionError::Cancelled => NotMade::Other(error),
        _ => NotMade::Unready(error),
    })
}

fn freeze_warm(
    mut machine: Machine,
    control: &Control,
    image: &BuiltImage,
    progress: &mut dyn FnMut(PrepareStep),
    cancel: &AtomicBool,
) -> Result<Vec<u8>, SessionError> {
    resume(control, FIRST_GENERATION)?;
    let cells = machine
        .connect(port::CELLS)
        .map_err(machine_error("reach the runner"))?;
    let mut cells = Lines::new(cells);
    for (at, code) in image.warm.iter().enumerate() {
        progress(PrepareStep::Warm {
            number: at + 1,
            count: image.warm.len(),
        });
        let cell = WarmCell {
            number: at + 1,
            code,
            stream: false,
            last: false,
        };
        warm(&mut machine, &mut cells, &cell, cancel)?;
    }
    let rehearsal = rehearsal(image.language);
    for (at, code) in rehearsal.into_iter().enumerate() {
        let cell = WarmCell {
            number: image.warm.len() + at + 1,
            code,
            stream: true,
            last: at + 1 == rehearsal.len(),
        };
        warm(&mut machine, &mut cells, &cell, cancel)?;
    }
    for generation in FIRST_GENERATION + 1..=LAST_GENERATION {
        resume(control, generation)?;
    }
    progress(PrepareStep::Freeze);
    control.ask(&ControlRequest::Quiesce, |reply| {
        matches!(reply, ControlReply::Quiesced { busy: false, .. }).then_some(())
    })?;
    let paused = machine
        .pause()
        .map_err(machine_error("pause the machine"))?;
    paused
        .into_base()
        .map_err(machine_error("save the machine"))
}

/// Tells the guest that it is a fresh copy, and waits until it differs from its siblings.
fn resume(control: &Control, generation: u64) -> Result<(), SessionError> {
    let resumed =
        hygiene::resumed(generation, vmrepl_wire::control::RngPolicy::Keep).map_err(|source| {
            SessionError::Guest {
                step: "draw entropy for the guest",
                source,
            }
        })?;
    control.ask(&resumed, |reply| {
        matches!(reply, ControlReply::Resumed { generation: told } if told == generation)
            .then_some(())
    })
}

fn wait_until_ready(
    machine: &mut Machine,
    control: &Control,
    deadline: Duration,
    cancel: &AtomicBool,
) -> Result<(), SessionError> {
    let until = Instant::now() + deadline;
    loop {
        check(cancel)?;
        if let Some(why) = machine.lost() {
            let console = machine.console();
            return Err(SessionError::MachineLost {
                why: format!("{why}; its console ends with: {console}"),
            });
        }
        let ready = control.wait(Duration::from_millis(200), |reply| match reply {
            ControlReply::RunnerReady { .. } => Some(Ok(())),
            ControlReply::RunnerLost {
                exit_code, signal, ..
            } => Some(Err((exit_code, signal))),
            _ => None,
        });
        match ready {
            Ok(Some(Ok(()))) => return Ok(()),
            Ok(Some(Err((code, signal)))) => {
                let why = format!(
                    "the runner did not start (exit code {code:?}, signal {signal:?}); the console ends with: {}",
                    machine.console()
                );
                return Err(SessionError::MachineLost { why });
            }
            Ok(None) => {}
            Err(SessionError::MachineLost { why }) => {
                let why = machine.lost().unwrap_or(why);
                return Err(SessionError::MachineLost {
                    why: format!("{why}; its console ends with: {}", machine.console()),
                });
            }
            Err(other) => return Err(other),
        }
        if Instant::now() > until {
            return Err(SessionError::Slow {
                what: "come up",
                seconds: deadline.as_secs(),
                console: machine.console(),
            });
        }
    }
}

/// One cell that warms the guest up.
struct WarmCell<'a> {
    number: usize,
    code: &'a str,
    stream: bool,
    /// After this one the guest clears away what the others have left.
    last: bool,
}

fn warm(
    machine: &mut Machine,
    cells: &mut Lines,
    cell: &WarmCell<'_>,
    cancel: &AtomicBool,
) -> Result<(), SessionError> {
    let number = cell.number;
    let id = format!("warm-{number}");
    let mut line = json!({
        "op": "warm", "id": id, "code": cell.code, "stream": cell.stream, "freeze": cell.last,
    })
    .to_string();
    line.push('\n');
    cells.send(line.as_bytes(), &Running::default())?;
    let until = Instant::now() + WARM_DEADLINE;
    let answer: Answer = loop {
        check(cancel)?;
        match cells.next(Some(Instant::now() + Duration::from_millis(200)))? {
            Waited::Line(line) if cell.stream => {
                if let Event::Done(answer) = parse(&line)? {
                    break *answer;
                }
            }
            Waited::Line(line) => break parse(&line)?,
            Waited::Closed => {
                let why = machine
                    .lost()
                    .unwrap_or_else(|| "it closed the port of cells".to_owned());
                return Err(SessionError::MachineLost { why });
            }
            Waited::TimedOut if Instant::now() > until => {
                return Err(SessionError::Slow {
                    what: "finish a warm-up cell",
                    seconds: WARM_DEADLINE.as_secs(),
                    console: machine.console(),
                });
            }
            Waited::TimedOut => {}
        }
    };
    if answer.exit_code != 0 {
        let error = answer
            .error
            .unwrap_or_else(|| format!("exit code {}", answer.exit_code));
        return Err(SessionError::WarmUp {
            number,
            error: format!("{error}{}", answer.stderr),
        });
    }
    Ok(())
}

fn check(cancel: &AtomicBool) -> Result<(), SessionError> {
    if cancel.load(Ordering::Relaxed) {
        Err(SessionError::Cancelled)
    } else {
        Ok(())
    }
}

fn length(path: &Path) -> Result<u64, SessionError> {
    path.metadata()
        .map(|facts| facts.len())
        .map_err(|source| SessionError::File {
            verb: "read",
            path: path.display().to_string(),
            source,
        })
}
