//! Which engine runs a template: a wish, how KVM stands here, and which templates there are.

use vmrepl_machine::Engine;

use crate::error::SessionError;
use crate::kind::{EngineChoice, EngineKind};
use crate::kvm::{self, KvmStanding, kvm_standing};
use crate::places::Places;
use crate::qemu::find_qemu;
use crate::template::{TemplateName, kinds_of, open_store};

/// Finds the engine for a wish, whatever it is to run.
///
/// # Errors
/// When the wished one cannot be used.
pub fn find_engine(places: &Places, choice: EngineChoice) -> Result<Engine, SessionError> {
    match choice {
        EngineChoice::Kvm => kvm::find_kvm(places),
        EngineChoice::Qemu => find_qemu(places),
        EngineChoice::Auto => match kvm_standing(places) {
            KvmStanding::Works { .. } => Ok(kvm::engine(places)),
            _ => find_qemu(places),
        },
    }
}

/// Finds the engine for a wish that is to run this template. Starts nothing.
///
/// # Errors
/// When the wished one cannot be used, or the template is for one that is not to be used here.
pub fn engine_for(
    places: &Places,
    choice: EngineChoice,
    name: &TemplateName,
) -> Result<Engine, SessionError> {
    if choice != EngineChoice::Auto {
        return find_engine(places, choice);
    }
    let kinds = kinds_of(&open_store(places)?, name);
    let standing = kvm_standing(places);
    match take(&standing, &kinds) {
        EngineKind::Kvm => Ok(kvm::engine(places)),
        EngineKind::Qemu if kinds == [EngineKind::Kvm] => Err(SessionError::OnlyKvm {
            name: name.to_string(),
            why: standing.obstacle().unwrap_or_default(),
        }),
        EngineKind::Qemu => find_qemu(places),
    }
}

/// What `auto` takes for a template that is there for `kinds`. Emulation gives way to KVM where a guest has
/// booted on it, and where the template is for nothing else and nothing speaks against trying.
pub(crate) fn take(standing: &KvmStanding, kinds: &[EngineKind]) -> EngineKind {
    let has = |kind| kinds.contains(&kind);
    match standing {
        KvmStanding::Works { .. } if has(EngineKind::Kvm) => EngineKind::Kvm,
        KvmStanding::Works { .. } | KvmStanding::NotProbed if !has(EngineKind::Qemu) => {
            EngineKind::Kvm
        }
        _ => EngineKind::Qemu,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use EngineKind::{Kvm, Qemu};

    #[test]
    fn auto_takes_what_is_proven_and_there() {
        let works = KvmStanding::Works { probed_s: 1 };
        let fails = KvmStanding::Fails {
            why: "it hung".to_owned(),
            probed_s: 1,
        };
        let denied = KvmStanding::Denied {
            why: "no".to_owned(),
        };
        let absent = KvmStanding::NoDevice {
            why: "gone".to_owned(),
        };
        let (unproven, soft) = (KvmStanding::NotProbed, KvmStanding::NoHardware);
        let rows: [(&KvmStanding, &[EngineKind], EngineKind); 16] = [
            (&works, &[Kvm, Qemu], Kvm),
            (&works, &[Kvm], Kvm),
            (&works, &[Qemu], Qemu),
            (&works, &[], Kvm),
            (&unproven, &[Kvm, Qemu], Qemu),
            (&unproven, &[Kvm], Kvm),
            (&unproven, &[Qemu], Qemu),
            (&unproven, &[], Kvm),
            (&fails, &[Kvm, Qemu], Qemu),
            (&fails, &[Kvm], Qemu),
            (&soft, &[Kvm, Qemu], Qemu),
            (&soft, &[Kvm], Qemu),
            (&denied, &[Kvm, Qemu], Qemu),
            (&denied, &[], Qemu),
            (&absent, &[Kvm], Qemu),
            (&absent, &[], Qemu),
        ];
        for (standing, kinds, expected) in rows {
            assert_eq!(take(standing, kinds), expected, "{standing:?}, {kinds:?}");
        }
    }
}
