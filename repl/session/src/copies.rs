//! Whether copies of a machine differ where they must: a session is forked twice, and each copy tells what it draws.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use vmrepl_wire::control::RngPolicy;
use vmrepl_wire::languages::Language;

use crate::apart::Heard;
use crate::cell::Cell;
use crate::error::SessionError;
use crate::kind::EngineChoice;
use crate::lasting::Opening;
use crate::name::SessionName;
use crate::places::Places;
use crate::session::Session;
use crate::template::TemplateName;

/// What the guest runs to tell.
const CODE: &str = include_str!("copies.py");
/// How far a copy's clock may be from the host's, which passes while the copy is asked.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// Things that user code has seeded: under the policy `keep` they go on where they were.
const OF_THE_USER: [&str; 4] = [
    "random, seeded by the user",
    "random.Random(7) of the user",
    "numpy.random, seeded by the user",
    "numpy Generator of the user",
];
/// Things that copies share and that nothing is done about.
const SHARED: [&str; 3] = ["process id", "address of an object", "hash of a string"];

/// What two copies are to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Each its own.
    Other,
    /// The same, because the user asked for what can be repeated.
    Same,
    /// The same: harmless, and it costs nothing.
    Shared,
    /// The time of now.
    True,
}

/// One thing that copies may have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hazard {
    /// What it is.
    pub name: String,
    /// What is wanted.
    pub wanted: Wanted,
    /// It is as it should be.
    pub holds: bool,
    /// What the two copies told.
    pub told: [String; 2],
}

#[derive(Debug, Deserialize)]
struct Told {
    found: BTreeMap<String, serde_json::Value>,
    clocks: Clocks,
}

#[derive(Debug, Deserialize)]
struct Clocks {
    wall_ns: u64,
    backwards: bool,
}

/// Makes a session with this template, lets it seed what a user may seed, forks it twice and compares what the copies
/// draw. The session is in a record of its own, which is gone afterwards. What asks and draws is Python.
///
/// The calling thread must outlive the machines, which end before this returns.
///
/// # Errors
/// When there is no such template, its cells are no Python, or a machine fails.
pub fn copies(
    places: &Places,
    template: &TemplateName,
    engine: EngineChoice,
    rng: RngPolicy,
) -> Result<Vec<Hazard>, SessionError> {
    let folder = places.run.join(format!(
        "copies.{}",
        crate::hygiene::random_name().map_err(draw)?
    ));
    let own = Places {
        sessions: folder.clone(),
        ..places.clone()
    };
    let told = two_copies(&own, template, engine, rng);
    // Nobody needs it, and nothing else lies there.
    drop(std::fs::remove_dir_all(&folder));
    let [(one, one_clock), (other, other_clock)] = told?;
    let mut hazards: Vec<Hazard> = one
        .found
        .iter()
        .map(|(name, value)| {
            let second = other.found.get(name).cloned().unwrap_or_default();
            let wanted = match name.as_str() {
                name if SHARED.contains(&name) => Wanted::Shared,
                name if OF_THE_USER.contains(&name) && rng == RngPolicy::Keep => Wanted::Same,
                _ => Wanted::Other,
            };
            Hazard {
                name: name.clone(),
                wanted,
                holds: (*value == second) != (wanted == Wanted::Other),
                told: [value.to_string(), second.to_string()],
            }
        })
        .collect();
    let off = |told: &Told, asked: Asked| {
        let wall_ns = told.clocks.wall_ns;
        wall_ns.abs_diff(wall_ns.clamp(asked.from_ns, asked.to_ns))
    };
    let offs = [off(&one, one_clock), off(&other, other_clock)];
    hazards.push(Hazard {
        name: "wall clock".to_owned(),
        wanted: Wanted::True,
        holds: offs
            .iter()
            .all(|ns| Duration::from_nanos(*ns) < CLOCK_TOLERANCE),
        told: offs.map(|ns| format!("{:.3} s off", Duration::from_nanos(ns).as_secs_f64())),
    });
    hazards.push(Hazard {
        name: "monotonic clocks".to_owned(),
        wanted: Wanted::True,
        holds: !one.clocks.backwards && !other.clocks.backwards,
        told: [&one, &other].map(|told| {
            let way = if told.clocks.backwards {
                "back"
            } else {
                "forwards"
            };
            way.to_owned()
        }),
    });
    Ok(hazards)
}

fn draw(source: std::io::Error) -> SessionError {
    SessionError::Guest {
        step: "draw a name",
        source,
    }
}

type Answered = (Told, Asked);

/// When a copy was asked, by the host's clock, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Asked {
    from_ns: u64,
    to_ns: u64,
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

fn two_copies(
    places: &Places,
    template: &TemplateName,
    engine: EngineChoice,
    rng: RngPolicy,
) -> Result<[Answered; 2], SessionError> {
    let names = ["first", "second"].map(SessionName::new);
    let [first, second] = names;
    let (first, second) = (first?, second?);
    let open = |name: &SessionName| {
        let opening = Opening {
            name,
            template,
            engine,
            at: None,
            patience: Duration::ZERO,
            rng,
            language: Some(Language::Python),
        };
        Session::open(places, &opening).map(|(session, _)| session)
    };
    let mut parent = open(&first)?;
    run(&mut parent, &format!("{CODE}\nvmrepl_seed()"))?;
    parent.fork(&second)?;
    drop(parent);
    let copy = |name: &SessionName| -> Result<Answered, SessionError> {
        let mut copy = open(name)?;
        let from_ns = now_ns();
        let told = run(&mut copy, "vmrepl_draw()")?;
        // It is set by the host's clock; the host's may be stepped meanwhile, but not back before it.
        let to_ns = now_ns().max(from_ns);
        let told = serde_json::from_slice(&told).map_err(|error| SessionError::MachineLost {
            why: format!("a copy told nothing that makes sense: {error}"),
        })?;
        Ok((told, Asked { from_ns, to_ns }))
    };
    Ok([copy(&first)?, copy(&second)?])
}

fn run(session: &mut Session, code: &str) -> Result<Vec<u8>, SessionError> {
    let mut heard = Heard::default();
    let answer = session.run(&Cell::new(code), &mut heard)?;
    if answer.exit_code != 0 {
        return Err(SessionError::MachineLost {
            why: answer.error.unwrap_or_default(),
        });
    }
    Ok(heard.0)
}
