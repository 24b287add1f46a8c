//! The engines by name, and the user's wish for one of them.

use std::fmt;

use vmrepl_machine::Engine;

/// An engine by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EngineKind {
    /// Hardware virtualisation.
    Kvm,
    /// Emulation.
    Qemu,
}

impl EngineKind {
    /// Every engine, the fastest first.
    pub const ALL: [Self; 2] = [Self::Kvm, Self::Qemu];

    /// `kvm` or `qemu`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
        }
    }

    /// The engine of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Which one an engine is.
    #[must_use]
    pub fn of(engine: &Engine) -> Self {
        match engine {
            Engine::Kvm(_) => Self::Kvm,
            Engine::Qemu(_) => Self::Qemu,
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The user's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// The fastest that is known to work.
    #[default]
    Auto,
    /// Hardware virtualisation.
    Kvm,
    /// Emulation.
    Qemu,
}
