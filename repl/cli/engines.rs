//! What the doctor says of engines: which one `auto` takes and why, what stands in the way of the other, and
//! the walls around what a guest could break out of.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use vmrepl_session::{
    Engine, EngineChoice, EngineKind, KvmStanding, Places, SessionError, find_engine, jail_facts,
    kvm_standing,
};

use crate::check::Check;
use crate::out;

const INSTALL_QEMU: &str = "install QEMU: apt-get install qemu-system-x86";

/// The engines of this host.
pub(crate) struct Engines {
    kvm: KvmStanding,
    qemu: Result<Engine, SessionError>,
}

impl Engines {
    pub(crate) fn look(places: &Places) -> Self {
        Self {
            kvm: kvm_standing(places),
            qemu: find_engine(places, EngineChoice::Qemu),
        }
    }

    /// The engine that `auto` takes when a template is there for both; nothing when none can run.
    fn taken(&self) -> Option<EngineKind> {
        match (&self.kvm, &self.qemu) {
            (KvmStanding::Works { .. }, _) | (KvmStanding::NotProbed, Err(_)) => {
                Some(EngineKind::Kvm)
            }
            (_, Ok(_)) => Some(EngineKind::Qemu),
            (_, Err(_)) => None,
        }
    }

    pub(crate) fn checks(&self) -> Vec<Check> {
        let mut checks = vec![self.choice(), self.kvm(), self.qemu()];
        checks.extend(self.kvm_walls());
        checks.extend(self.qemu_walls());
        checks
    }

    /// The same for programs.
    pub(crate) fn facts(&self) -> Value {
        let (standing, probed_s) = match &self.kvm {
            KvmStanding::NoDevice { .. } => ("no_device", None),
            KvmStanding::Denied { .. } => ("denied", None),
            KvmStanding::NoHardware => ("no_hardware", None),
            KvmStanding::NotProbed => ("not_probed", None),
            KvmStanding::Works { probed_s } => ("works", Some(*probed_s)),
            KvmStanding::Fails { probed_s, .. } => ("fails", Some(*probed_s)),
        };
        json!({
            "auto": self.taken().map(EngineKind::name),
            "kvm": {
                "standing": standing,
                "why": self.kvm.obstacle(),
                "probed_s": probed_s,
                "probed_ago_s": probed_s.map(seconds_since),
            },
            "qemu": match &self.qemu {
                Ok(engine) => json!({"found": true, "compat": engine.compat()}),
                Err(error) => json!({"found": false, "why": out::chain(error)}),
            },
        })
    }

    fn choice(&self) -> Check {
        let name = "engine";
        let why = self.kvm.brief();
        match (self.taken(), &self.kvm) {
            (Some(EngineKind::Kvm), KvmStanding::Works { .. }) => Check::ok(
                name,
                format!(
                    "auto takes kvm, since {why}; a template that is for qemu alone is emulated"
                ),
            ),
            (Some(EngineKind::Kvm), _) => Check::warn(
                name,
                format!("auto takes kvm, since there is no QEMU; {why}"),
                "vmrepl prepare",
            ),
            (Some(EngineKind::Qemu), _) => Check::ok(
                name,
                format!("auto takes qemu (emulation, runs anywhere) and not kvm: {why}"),
            ),
            (None, _) => {
                let found = match &self.qemu {
                    Ok(_) => "none can run a machine".to_owned(),
                    Err(error) => format!("none can run a machine: {}", out::chain(error)),
                };
                Check::fail(name, found, INSTALL_QEMU)
            }
        }
    }

    fn kvm(&self) -> Check {
        let name = "kvm";
        let obstacle = self.kvm.obstacle().unwrap_or_default();
        match &self.kvm {
            KvmStanding::NoDevice { .. } => Check::ok(
                name,
                format!("{obstacle}; not needed: machines are emulated"),
            ),
            KvmStanding::Denied { .. } => Check::warn(
                name,
                obstacle,
                "sudo usermod -aG kvm $USER, then log in again",
            ),
            KvmStanding::NoHardware => Check::ok(
                name,
                format!("{obstacle}; `vmrepl prepare --engine kvm` tries it all the same"),
            ),
            KvmStanding::NotProbed => Check::warn(
                name,
                "/dev/kvm opens and the processor has vmx or svm, but this version has booted no guest on it \
                 since the host came up",
                "vmrepl prepare (it boots one and remembers how that went)",
            ),
            KvmStanding::Works { probed_s } => {
                Check::ok(name, format!("a guest booted on it {}", ago(*probed_s)))
            }
            KvmStanding::Fails { probed_s, .. } => Check::warn(
                name,
                format!("{obstacle} ({})", ago(*probed_s)),
                "to try again: vmrepl prepare --engine kvm",
            ),
        }
    }

    fn qemu(&self) -> Check {
        let name = "qemu";
        match &self.qemu {
            Ok(engine) => Check::ok(name, engine.compat()),
            Err(error) => Check::warn(name, out::chain(error), INSTALL_QEMU),
        }
    }

    fn kvm_walls(&self) -> Vec<Check> {
        if matches!(
            self.kvm,
            KvmStanding::NoDevice { .. } | KvmStanding::Denied { .. }
        ) {
            return Vec::new();
        }
        [
            "the host from a guest: the processor keeps it in its own memory, and each machine is one process",
            "the host from that process: a seccomp filter leaves it no call for files, sockets, programs or new code",
            "the host from what it could start: no new privileges, for good; without these two no machine starts",
        ]
        .into_iter()
        .map(|wall| Check::ok("kvm jail", wall))
        .collect()
    }

    fn qemu_walls(&self) -> Vec<Check> {
        if self.qemu.is_err() {
            return Vec::new();
        }
        let fixed = [
            "the host from QEMU: its seccomp filter leaves it no call for new processes or more rights",
            "the host from what it could start: no new privileges, for good; without these two no machine starts",
        ];
        let fix =
            "a host Linux with Landlock (5.13 for files, 6.7 for TCP) jails QEMU more tightly";
        let landlock = jail_facts().into_iter().map(|fact| {
            if fact.holds {
                Check::ok("qemu jail", format!("{} holds", fact.name))
            } else {
                let found = format!(
                    "{} is not there; seccomp and no-new-privileges stand",
                    fact.name
                );
                Check::warn("qemu jail", found, fix)
            }
        });
        fixed
            .into_iter()
            .map(|wall| Check::ok("qemu jail", wall))
            .chain(landlock)
            .collect()
    }
}

fn seconds_since(then_s: u64) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_secs());
    now.saturating_sub(then_s)
}

fn ago(then_s: u64) -> String {
    let (count, unit) = match seconds_since(then_s) {
        s @ 0..120 => (s, "s"),
        s @ 120..7200 => (s / 60, "min"),
        s @ 7200..172_800 => (s / 3600, "h"),
        s => (s / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}
