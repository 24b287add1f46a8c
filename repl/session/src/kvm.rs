//! Whether KVM runs guests here: cheap checks, and the note of the last time that a guest was booted on it.
//!
//! `/dev/kvm` may exist and still not boot a stock Linux: some clouds virtualise by page tables in software.
//! The flags of the processor are a first hint, a booted guest is the proof. The proof holds until the host
//! boots anew, the device is another one, or this program is another version.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use vmrepl_machine::Engine;

use crate::error::SessionError;
use crate::limits::REASON_CHARS_MAX;
use crate::notes;
use crate::places::Places;

const DEVICE: &str = "/dev/kvm";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const PROCESSORS: &str = "/proc/cpuinfo";

/// How KVM stands on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvmStanding {
    /// There is no device, or no driver behind it.
    NoDevice {
        /// What the system said.
        why: String,
    },
    /// This user may not open the device.
    Denied {
        /// What the system said.
        why: String,
    },
    /// The device opens, and the processor has no hardware virtualisation; no guest was ever booted on it.
    NoHardware,
    /// All looks well, and no guest was booted on it yet.
    NotProbed,
    /// A guest was booted on it.
    Works {
        /// When, in seconds since 1970.
        probed_s: u64,
    },
    /// A guest was to be booted on it, and did not get ready.
    Fails {
        /// How that ended.
        why: String,
        /// When, in seconds since 1970.
        probed_s: u64,
    },
}

impl KvmStanding {
    /// Whether a guest may be tried on it without being asked to.
    pub(crate) fn is_promising(&self) -> bool {
        matches!(self, Self::NotProbed | Self::Works { .. })
    }

    /// The standing in a few words.
    #[must_use]
    pub fn brief(&self) -> &'static str {
        match self {
            Self::NoDevice { .. } => "it is not there",
            Self::Denied { .. } => "this user may not use it",
            Self::NoHardware => "the processor has no hardware virtualisation",
            Self::NotProbed => "no guest has booted on it yet",
            Self::Works { .. } => "a guest has booted on it",
            Self::Fails { .. } => "a guest did not boot on it",
        }
    }

    /// Why a guest cannot run or is not known to run on it, in a clause; nothing when it works.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        Some(match self {
            Self::NoDevice { why } => format!("there is no usable {DEVICE} ({why})"),
            Self::Denied { why } => format!("{DEVICE} is there and may not be opened ({why})"),
            Self::NoHardware => format!(
                "{DEVICE} opens, but the processor's flags have neither vmx nor svm; this host's KVM is itself \
                 virtual without hardware: it may exist and still not boot a stock Linux"
            ),
            Self::NotProbed => format!("no guest was booted on {DEVICE} yet"),
            Self::Works { .. } => return None,
            Self::Fails { why, .. } => format!("a guest did not boot on it: {why}"),
        })
    }
}

/// What the device said.
enum Device {
    Absent(String),
    Denied(String),
    Open { device: u64, inode: u64 },
}

/// Where a proof holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ground {
    /// Drawn by the host's Linux when it boots.
    boot_id: String,
    /// Where the device's file lies.
    device: u64,
    inode: u64,
    /// This program's version.
    program: String,
    /// The version of a machine's state.
    state: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Works,
    Fails,
}

/// What became of the last guest that was booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    verdict: Verdict,
    reason: String,
    probed_s: u64,
    #[serde(flatten)]
    ground: Ground,
}

/// How KVM stands here. Starts nothing, and costs tens of microseconds.
#[must_use]
pub fn kvm_standing(places: &Places) -> KvmStanding {
    let device = open_device();
    let proof = match &device {
        Device::Open { device, inode } => Ground::here(places, *device, *inode)
            .and_then(|ground| notes::read::<Note>(&note_path(places))?.on(&ground)),
        _ => None,
    };
    judge(device, proof, has_hardware)
}

/// The engine, for those who ask for it by name.
///
/// # Errors
/// When there is no device or it may not be opened. Whether it boots a guest is for the user to see.
pub(crate) fn find_kvm(places: &Places) -> Result<Engine, SessionError> {
    let refused = match open_device() {
        Device::Open { .. } => return Ok(engine(places)),
        Device::Absent(why) => KvmStanding::NoDevice { why },
        Device::Denied(why) => KvmStanding::Denied { why },
    };
    Err(SessionError::NoKvm {
        why: refused.obstacle().unwrap_or_default(),
        denied: matches!(refused, KvmStanding::Denied { .. }),
    })
}

/// The engine, for those who know how it stands.
pub(crate) fn engine(places: &Places) -> Engine {
    let (program, arguments) = places.worker.clone();
    Engine::kvm(program, arguments)
}

/// Keeps what became of a guest that was booted on KVM.
pub(crate) fn remember(places: &Places, outcome: Result<(), &str>) {
    let Device::Open { device, inode } = open_device() else {
        return;
    };
    let Some(ground) = Ground::here(places, device, inode) else {
        return;
    };
    notes::write(&note_path(places), &Note::new(outcome, ground));
}

/// The verdict of facts, the cheapest first. A booted guest counts more than what the flags say.
fn judge(device: Device, proof: Option<Note>, has_hardware: impl FnOnce() -> bool) -> KvmStanding {
    match (device, proof) {
        (Device::Absent(why), _) => KvmStanding::NoDevice { why },
        (Device::Denied(why), _) => KvmStanding::Denied { why },
        (Device::Open { .. }, Some(note)) => match note.verdict {
            Verdict::Works => KvmStanding::Works {
                probed_s: note.probed_s,
            },
            Verdict::Fails => KvmStanding::Fails {
                why: note.reason,
                probed_s: note.probed_s,
            },
        },
        (Device::Open { .. }, None) if has_hardware() => KvmStanding::NotProbed,
        (Device::Open { .. }, None) => KvmStanding::NoHardware,
    }
}

impl Ground {
    fn here(places: &Places, device: u64, inode: u64) -> Option<Self> {
        Some(Self {
            boot_id: fs::read_to_string(BOOT_ID).ok()?.trim().to_owned(),
            device,
            inode,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            state: engine(places).compat(),
        })
    }
}

impl Note {
    fn new(outcome: Result<(), &str>, ground: Ground) -> Self {
        let (verdict, reason) = match outcome {
            Ok(()) => (Verdict::Works, "a guest got ready"),
            Err(reason) => (Verdict::Fails, reason),
        };
        Self {
            verdict,
            reason: reason.chars().take(REASON_CHARS_MAX).collect(),
            probed_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |age| age.as_secs()),
            ground,
        }
    }

    /// The note, if it holds on this ground.
    fn on(self, ground: &Ground) -> Option<Self> {
        (self.ground == *ground).then_some(self)
    }
}

fn note_path(places: &Places) -> PathBuf {
    places.store.join("kvm.json")
}

fn open_device() -> Device {
    let opened = OpenOptions::new().read(true).write(true).open(DEVICE);
    match opened.and_then(|file| file.metadata()) {
        Ok(facts) => Device::Open {
            device: facts.dev(),
            inode: facts.ino(),
        },
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Device::Denied(error.to_string())
        }
        Err(error) => Device::Absent(error.to_string()),
    }
}

/// Whether the first processor tells of hardware virtualisation. Reading about all of them takes
/// milliseconds where they are many.
fn has_hardware() -> bool {
    let Ok(processors) = File::open(PROCESSORS) else {
        return false;
    };
    BufReader::with_capacity(4096, processors)
        .lines()
        .map_while(Result::ok)
        .find(|line| line.starts_with("flags"))
        .is_some_and(|flags| {
            flags
                .split_ascii_whitespace()
                .any(|flag| ["vmx", "svm"].contains(&flag))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground() -> Ground {
        Ground {
            boot_id: "first".to_owned(),
            device: 5,
            inode: 7,
            program: "1.0.0".to_owned(),
            state: "kvm 1".to_owned(),
        }
    }

    fn open() -> Device {
        Device::Open {
            device: 5,
            inode: 7,
        }
    }

    fn kept(folder: &tempfile::TempDir, outcome: Result<(), &str>) -> PathBuf {
        let path = folder.path().join("kvm.json");
        notes::write(&path, &Note::new(outcome, ground()));
        path
    }

    #[test]
    fn a_note_comes_back_whole_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = kept(&folder, Err("it hung"));
        let note = notes::read::<Note>(&path).unwrap();
        assert_eq!(note, Note::new(Err("it hung"), ground()));
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
        let standing = judge(open(), note.on(&ground()), || true);
        assert!(
            matches!(&standing, KvmStanding::Fails { why, .. } if why == "it hung"),
            "{standing:?}"
        );
        let note = notes::read::<Note>(&kept(&folder, Ok(()))).unwrap();
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
        let standing = judge(open(), note.on(&ground()), || false);
        assert!(
            matches!(standing, KvmStanding::Works { probed_s } if probed_s > 0),
            "a booted guest proves more than flags: {standing:?}"
        );
    }

    #[test]
    fn a_note_from_elsewhere_says_nothing() {
        let note = Note::new(Ok(()), ground());
        let elsewhere = [
            Ground {
                boot_id: "second".to_owned(),
                ..ground()
            },
            Ground {
                device: 6,
                ..ground()
            },
            Ground {
                inode: 8,
                ..ground()
            },
            Ground {
                program: "1.0.1".to_owned(),
                ..ground()
            },
            Ground {
                state: "kvm 2".to_owned(),
                ..ground()
            },
        ];
        for here in elsewhere {
            let standing = judge(open(), note.clone().on(&here), || true);
            assert_eq!(standing, KvmStanding::NotProbed, "{here:?}");
        }
    }

    #[test]
    fn a_damaged_note_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = kept(&folder, Ok(()));
        let whole = fs::read(&path).unwrap();
        for damaged in [
            &whole[..whole.len() / 2],
            b"",
            b"{}",
            b"[1]",
            b"\xff\xfe",
            br#"{"verdict":"perhaps"}"#,
        ] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(notes::read::<Note>(&path), None, "{damaged:?}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(notes::read::<Note>(&path), None);
    }

    #[test]
    fn the_cheap_checks_come_first() {
        let proof = || Some(Note::new(Ok(()), ground()));
        let absent = judge(Device::Absent("gone".to_owned()), proof(), || true);
        assert_eq!(
            absent,
            KvmStanding::NoDevice {
                why: "gone".to_owned()
            }
        );
        let denied = judge(Device::Denied("no".to_owned()), proof(), || true);
        assert_eq!(
            denied,
            KvmStanding::Denied {
                why: "no".to_owned()
            }
        );
        assert_eq!(judge(open(), None, || false), KvmStanding::NoHardware);
        assert_eq!(judge(open(), None, || true), KvmStanding::NotProbed);
        for standing in [absent, denied, KvmStanding::NoHardware] {
            assert!(!standing.is_promising(), "{standing:?}");
            assert!(standing.obstacle().unwrap().contains(DEVICE));
        }
    }

    #[test]
    fn a_long_reason_is_cut() {
        let note = Note::new(Err(&"x".repeat(10_000)), ground());
        assert_eq!(note.reason.len(), REASON_CHARS_MAX);
    }
}
