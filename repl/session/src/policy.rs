//! When a cell of a session leaves a checkpoint, and what follows one that failed.

/// Which cells leave a checkpoint at once. The state that a session is left in is always stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SnapshotWhen {
    /// Each.
    #[default]
    OnCell,
    /// Those that fail.
    OnFailure,
    /// None: faster, and a process that is killed loses what ran since the last.
    Off,
}

/// What follows a cell that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// The session goes on with what the cell did before it failed, as any interpreter.
    #[default]
    Keep,
    /// The session goes back to where it was before the cell, whose state stays as a branch.
    Rollback,
}

/// Both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Which cells leave a checkpoint.
    pub snapshot: SnapshotWhen,
    /// What follows one that failed.
    pub on_failure: OnFailure,
}

impl Policy {
    /// Whether a cell leaves a checkpoint at once.
    pub(crate) fn stores(self, has_failed: bool) -> bool {
        match self.snapshot {
            // Going back needs the state before.
            _ if self.on_failure == OnFailure::Rollback => true,
            SnapshotWhen::OnCell => true,
            SnapshotWhen::OnFailure => has_failed,
            SnapshotWhen::Off => false,
        }
    }
}
