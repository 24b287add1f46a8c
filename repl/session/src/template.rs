//! Templates: what is written beside the memory of a warm machine, and finding them again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vmrepl_machine::{Engine, Hardware};
use vmrepl_snapshots::{Facts, Snapshot, SnapshotId, Store};

use crate::error::SessionError;
use crate::kind::EngineKind;
use crate::limits::RECORD_BYTES_MAX;
use crate::places::Places;
use vmrepl_wire::languages::Language;

/// The kind of name under which the store keeps the templates for an engine. Each has its own, so that one
/// name can stand for a template for each; emulation's is the oldest.
pub(crate) fn names_for(engine: EngineKind) -> &'static str {
    match engine {
        EngineKind::Kvm => "templates-kvm",
        EngineKind::Qemu => "templates",
    }
}

/// The section with the machine's state.
pub(crate) const MACHINE: &str = "machine";
/// The section with the pages that a restore maps ahead; not every template has it.
pub(crate) const HOT: &str = "hot-pages";
/// Version of its layout.
pub(crate) const HOT_VERSION: u32 = 1;
/// The section with the [`TemplateRecord`].
pub(crate) const RECORD: &str = "template";
/// Version of the record's layout: JSON, additions only.
pub(crate) const RECORD_VERSION: u32 = 1;

/// The name of a template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemplateName(String);

impl TemplateName {
    /// Checks a name.
    ///
    /// # Errors
    /// When it is empty, too long, starts with a dot or a dash, or holds anything but letters, digits and `._+-`.
    pub fn new(name: &str) -> Result<Self, SessionError> {
        crate::name::check(name)?;
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for TemplateName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a template was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateRecord {
    /// The recipe's name.
    pub recipe: String,
    /// Identifies the image: a hash of everything that went into it.
    pub image_digest: String,
    /// The root file system, relative to the folder of images.
    pub root: PathBuf,
    /// Its length in bytes.
    pub root_bytes: u64,
    /// Its BLAKE3 checksum, in hexadecimal.
    pub root_blake3: String,
    /// Number of virtual processors.
    pub vcpus: u8,
    /// The guest's Linux release.
    pub linux: String,
    /// When it was made, in seconds since 1970.
    pub created_s: u64,
    /// The last resume that the guest has seen.
    pub generation: u64,
    /// The rate of the host's time stamp counter, by which the guest tells time; 0 where it was not told.
    #[serde(default)]
    pub counter_khz: u64,
    /// Names and versions of what is in the image.
    #[serde(default)]
    pub packages: Vec<String>,
    /// What each cell may take, as [`Limits::set`](crate::Limits::set) understands it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// What its cells are written in.
    #[serde(default = "python", skip_serializing_if = "is_python")]
    pub language: Language,
}

/// Refuses `what` when its cells are written in another language than is wanted.
pub(crate) fn expect_language(what: &str, has: &str, wanted: &str) -> Result<(), SessionError> {
    if has == wanted {
        return Ok(());
    }
    Err(SessionError::OtherLanguage {
        what: what.to_owned(),
        has: has.to_owned(),
        wanted: wanted.to_owned(),
    })
}

fn python() -> Language {
    Language::Python
}

fn is_python(language: &Language) -> bool {
    *language == Language::Python
}

/// A template as it lies in the store.
#[derive(Debug)]
pub struct Template {
    /// Its name.
    pub name: TemplateName,
    /// What it was made of.
    pub record: TemplateRecord,
    snapshot: Snapshot,
    root: PathBuf,
}

/// One template of [`Template::all`].
#[derive(Debug)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// The engine that its name is kept for.
    pub engine: EngineKind,
    /// The template, or why it cannot be read.
    pub template: Result<Template, SessionError>,
}

/// The facts that a snapshot made here and now would carry.
pub(crate) fn facts(engine: &Engine, memory_bytes: u64) -> Facts {
    Facts {
        engine: engine.name().to_owned(),
        compat: engine.compat(),
        architecture: std::env::consts::ARCH.to_owned(),
        cpu: engine.cpu().to_owned(),
        memory_bytes,
    }
}

/// Opens the store, read-only work included; cheap.
pub(crate) fn open_store(places: &Places) -> Result<Store, SessionError> {
    Store::open(&places.store).map_err(SessionError::Store)
}

impl Template {
    /// Finds the template of a name for an engine.
    ///
    /// # Errors
    /// When there is none, or its header or record is damaged.
    pub fn open(
        places: &Places,
        name: &TemplateName,
        engine: EngineKind,
    ) -> Result<Self, SessionError> {
        let store = open_store(places)?;
        let id = resolve(&store, name, engine)?;
        Self::load(places, &store, name.clone(), &id)
    }

    /// Refuses a template whose cells are written in another language than this.
    pub(crate) fn expect_language(&self, wanted: &str) -> Result<(), SessionError> {
        let what = format!("template {:?}", self.name.as_str());
        expect_language(&what, self.record.language.name(), wanted)
    }

    /// Reads a template by its snapshot.
    pub(crate) fn load(
        places: &Places,
        store: &Store,
        name: TemplateName,
        id: &SnapshotId,
    ) -> Result<Self, SessionError> {
        let snapshot = store.snapshot(id).map_err(SessionError::Store)?;
        let section = snapshot.read_section(RECORD).map_err(SessionError::Store)?;
        let unusable = |why: String| SessionError::Section {
            name: name.to_string(),
            section: RECORD,
            why,
        };
        if section.version != RECORD_VERSION || section.bytes.len() > RECORD_BYTES_MAX {
            return Err(unusable(format!(
                "version {}, {} bytes",
                section.version,
                section.bytes.len()
            )));
        }
        let record: TemplateRecord =
            serde_json::from_slice(&section.bytes).map_err(|error| unusable(error.to_string()))?;
        let inside = record
            .root
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if !inside {
            return Err(unusable(format!(
                "root {:?} leaves the folder of images",
                record.root
            )));
        }
        let root = places.images.join(&record.root);
        Ok(Self {
            name,
            record,
            snapshot,
            root,
        })
    }

    /// All templates for all engines, sorted by name; those that cannot be read come with the reason.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub fn all(places: &Places) -> Result<Vec<Found>, SessionError> {
        let store = open_store(places)?;
        let mut all = Vec::new();
        for engine in EngineKind::ALL {
            let names = store
                .names(names_for(engine))
                .map_err(SessionError::Store)?;
            all.extend(names.into_iter().map(|named| {
                Found {
                    template: TemplateName::new(&named.name)
                        .and_then(|name| Self::load(places, &store, name, &named.id)),
                    name: named.name,
                    engine,
                }
            }));
        }
        all.sort_by(|a, b| (&a.name, a.engine).cmp(&(&b.name, b.engine)));
        Ok(all)
    }

    /// The snapshot's id.
    #[must_use]
    pub fn id(&self) -> SnapshotId {
        self.snapshot.id()
    }

    /// Guest memory in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.snapshot.header().facts.memory_bytes
    }

    /// The engine that it belongs to, with its version.
    #[must_use]
    pub fn compat(&self) -> &str {
        &self.snapshot.header().facts.compat
    }

    /// Bytes that memory and root file system take on the disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let blocks = |path: &Path| path.metadata().map_or(0, |facts| facts.blocks() * 512);
        self.snapshot.memory_path().as_deref().map_or(0, blocks) + blocks(&self.root)
    }

    /// The root file system.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What a restore of it needs, checked against `engine`.
    ///
    /// # Errors
    /// When it belongs to another engine, version or processor, or its root file system is not there.
    pub(crate) fn hardware(&self, engine: &Engine) -> Result<Hardware, SessionError> {
        let differences = self
            .snapshot
            .header()
            .facts
            .differences(&facts(engine, self.memory_bytes()));
        if !differences.is_empty() {
            let told = differences
                .iter()
                .map(|d| format!("{} is {:?} there and {:?} here", d.fact, d.stored, d.here))
                .collect::<Vec<_>>();
            return Err(SessionError::Foreign {
                name: self.name.to_string(),
                differences: told.join("; "),
            });
        }
        let missing = |source| SessionError::Root {
            name: self.name.to_string(),
            path: self.root.clone(),
            source,
        };
        let found = self.root.metadata().map_err(missing)?.len();
        if found != self.record.root_bytes {
            let text = format!("{found} bytes instead of {}", self.record.root_bytes);
            return Err(missing(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                text,
            )));
        }
        let memory_file = self
            .snapshot
            .memory_path()
            .ok_or_else(|| SessionError::Section {
                name: self.name.to_string(),
                section: "memory",
                why: "it is a layer, not a base".to_owned(),
            })?;
        Ok(Hardware {
            memory_bytes: self.memory_bytes(),
            vcpus: self.record.vcpus,
            memory_file,
            root: self.root.clone(),
        })
    }

    /// The pages to map ahead. Only a hint: without it, or in a later layout, there is none.
    pub(crate) fn hot_pages(&self) -> Vec<u8> {
        match self.snapshot.read_section(HOT) {
            Ok(section) if section.version == HOT_VERSION => section.bytes,
            _ => Vec::new(),
        }
    }

    /// The machine's state.
    pub(crate) fn machine_state(&self) -> Result<Vec<u8>, SessionError> {
        Ok(self
            .snapshot
            .read_section(MACHINE)
            .map_err(SessionError::Store)?
            .bytes)
    }
}

/// The engines that a name has a template for; one that cannot be read counts.
pub(crate) fn kinds_of(store: &Store, name: &TemplateName) -> Vec<EngineKind> {
    let has = |kind: &EngineKind| {
        let found = store.resolve(names_for(*kind), name.as_str());
        !matches!(found, Ok(None))
    };
    EngineKind::ALL.into_iter().filter(has).collect()
}

/// The engines that a name has a template for: at least one.
///
/// # Errors
/// When there is no template of this name for any engine.
pub fn template_engines(
    places: &Places,
    name: &TemplateName,
) -> Result<Vec<EngineKind>, SessionError> {
    let store = open_store(places)?;
    match kinds_of(&store, name) {
        kinds if kinds.is_empty() => Err(no_template(&store, name, EngineKind::Qemu)),
        kinds => Ok(kinds),
    }
}

/// The snapshot that a name stands for.
pub(crate) fn resolve(
    store: &Store,
    name: &TemplateName,
    engine: EngineKind,
) -> Result<SnapshotId, SessionError> {
    store
        .resolve(names_for(engine), name.as_str())
        .map_err(SessionError::Store)?
        .ok_or_else(|| no_template(store, name, engine))
}

/// That there is no such template, but these.
fn no_template(store: &Store, name: &TemplateName, engine: EngineKind) -> SessionError {
    let mut known = Vec::new();
    for kind in EngineKind::ALL {
        match store.names(names_for(kind)) {
            Ok(named) => known.extend(named.into_iter().map(|named| named.name)),
            Err(error) => return SessionError::Store(error),
        }
    }
    known.sort_unstable();
    known.dedup();
    SessionError::NoTemplate {
        name: name.to_string(),
        engine,
        elsewhere: kinds_of(store, name).first().copied(),
        known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for fine in ["python", "python+polars-1.2", "a", "A_b.c"] {
            TemplateName::new(fine).unwrap();
        }
        for wrong in ["", ".hidden", "-x", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(TemplateName::new(wrong).is_err(), "{wrong:?}");
        }
    }

    /// A store with one snapshot, for names to stand for.
    fn store(folder: &tempfile::TempDir) -> (Places, Store, SnapshotId) {
        let places = Places {
            store: folder.path().join("store"),
            images: folder.path().join("images"),
            sessions: folder.path().join("sessions"),
            run: folder.path().join("run"),
            search_path: std::ffi::OsString::new(),
            worker: (PathBuf::new(), Vec::new()),
        };
        let store = open_store(&places).unwrap();
        let draft = store.base_draft(1 << 20).unwrap();
        let facts = Facts {
            engine: "qemu".to_owned(),
            compat: "qemu 7.2 microvm".to_owned(),
            architecture: "x86_64".to_owned(),
            cpu: "max".to_owned(),
            memory_bytes: 1 << 20,
        };
        let id = draft.publish(&facts).unwrap();
        (places, store, id)
    }

    #[test]
    fn one_name_stands_for_a_template_for_each_engine() {
        let folder = tempfile::tempdir().unwrap();
        let (places, store, id) = store(&folder);
        let name = TemplateName::new("base").unwrap();
        assert_eq!(kinds_of(&store, &name), []);
        // What was there before there was a second engine is emulation's.
        store.set_name("templates", "base", &id).unwrap();
        assert_eq!(kinds_of(&store, &name), [EngineKind::Qemu]);
        assert_eq!(resolve(&store, &name, EngineKind::Qemu).unwrap(), id);
        let missing = resolve(&store, &name, EngineKind::Kvm).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "there is no template \"base\" for the engine kvm; there is one for qemu"
        );
        let hint = missing.hint().unwrap();
        assert!(
            hint.contains("vmrepl prepare base --engine kvm") && hint.contains("leave --engine"),
            "{hint}"
        );
        store
            .set_name(names_for(EngineKind::Kvm), "base", &id)
            .unwrap();
        store
            .set_name(names_for(EngineKind::Kvm), "other", &id)
            .unwrap();
        assert_eq!(kinds_of(&store, &name), EngineKind::ALL);
        let all: Vec<_> = Template::all(&places)
            .unwrap()
            .into_iter()
            .map(|found| format!("{} {}", found.name, found.engine))
            .collect();
        assert_eq!(all, ["base kvm", "base qemu", "other kvm"]);
        let unknown = TemplateName::new("unknown").unwrap();
        let missing = resolve(&store, &unknown, EngineKind::Kvm).unwrap_err();
        assert_eq!(missing.to_string(), "there is no template \"unknown\"");
        let hint = missing.hint().unwrap();
        assert!(hint.ends_with("take one of: base, other"), "{hint}");
    }

    #[test]
    fn a_template_from_elsewhere_is_refused_by_what_differs() {
        let folder = tempfile::tempdir().unwrap();
        let (places, store, _) = store(&folder);
        let engine = Engine::kvm(PathBuf::new(), Vec::new());
        let own = facts(&engine, 1 << 20);
        let name = TemplateName::new("moved").unwrap();
        let refusal = |facts: &Facts| {
            let mut draft = store.base_draft(1 << 20).unwrap();
            let record = serde_json::json!({
                "recipe": "moved", "image_digest": "", "root": "root", "root_bytes": 4, "root_blake3": "",
                "vcpus": 1, "linux": "6.1", "created_s": 0, "generation": 1,
            });
            let bytes = serde_json::to_vec(&record).unwrap();
            draft.section(RECORD, RECORD_VERSION, &bytes).unwrap();
            let id = draft.publish(facts).unwrap();
            store
                .set_name(names_for(EngineKind::Kvm), "moved", &id)
                .unwrap();
            let template = Template::open(&places, &name, EngineKind::Kvm).unwrap();
            let refused = template.hardware(&engine).unwrap_err();
            (refused.to_string(), refused.hint().unwrap())
        };
        let strangers = [
            (
                "cpu",
                "ElsewhereCPU",
                Facts {
                    cpu: "ElsewhereCPU".to_owned(),
                    ..own.clone()
                },
            ),
            (
                "compat",
                "kvm 1",
                Facts {
                    compat: "kvm 1".to_owned(),
                    ..own.clone()
                },
            ),
            (
                "architecture",
                "aarch64",
                Facts {
                    architecture: "aarch64".to_owned(),
                    ..own.clone()
                },
            ),
        ];
        for (fact, there, stranger) in strangers {
            let (said, hint) = refusal(&stranger);
            assert!(said.contains("belongs elsewhere"), "{said}");
            assert!(said.contains(fact) && said.contains(there), "{said}");
            assert!(hint.contains("vmrepl prepare moved"), "{hint}");
        }
        // From here, and only its root file system is missing.
        let (said, _) = refusal(&own);
        assert!(said.contains("needs its root file system"), "{said}");
    }
}
