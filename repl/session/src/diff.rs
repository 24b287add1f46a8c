//! What differs between two checkpoints: the user's names with their values, as two machines tell them.

use std::collections::BTreeMap;

use vmrepl_machine::Purpose;

use crate::apart::{Spot, checkpoint, engine_of, restore};
use crate::book::open_history;
use crate::cell::Variable;
use crate::error::SessionError;
use crate::places::Places;

/// A name that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// It is there afterwards alone.
    Added(Variable),
    /// It was there before alone.
    Removed(Variable),
    /// It has another value: before, afterwards.
    Changed(Variable, Variable),
}

impl Difference {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Added(one) | Self::Removed(one) | Self::Changed(one, _) => &one.name,
        }
    }
}

/// Compares the names of two checkpoints, in the order of the names. Values are compared in the guests, by a sum of
/// their content; where there is none, by what is shown of them.
///
/// The calling thread must outlive the machines, which end before this returns.
///
/// # Errors
/// When there is no such cell, it left no checkpoint, or that cannot be restored.
pub fn diff(places: &Places, before: &Spot, after: &Spot) -> Result<Vec<Difference>, SessionError> {
    let before = variables(places, before)?;
    let mut after = variables(places, after)?;
    let mut found = Vec::new();
    for (name, old) in before {
        match after.remove(&name) {
            None => found.push(Difference::Removed(old)),
            Some(new) if is_same(&old, &new) => {}
            Some(new) => found.push(Difference::Changed(old, new)),
        }
    }
    found.extend(after.into_values().map(Difference::Added));
    found.sort_by(|one, other| one.name().cmp(other.name()));
    Ok(found)
}

fn variables(places: &Places, spot: &Spot) -> Result<BTreeMap<String, Variable>, SessionError> {
    let history = open_history(places)?;
    let (row, number) = spot.find(&history)?;
    let at = checkpoint(&history, &row, number)?;
    let engine = engine_of(places, &row)?;
    let mut machine = restore(places, &engine, &row, at, Purpose::Run)?;
    let told = machine.variables_with_digests()?;
    Ok(told
        .into_iter()
        .map(|variable| (variable.name.clone(), variable))
        .collect())
}

fn is_same(old: &Variable, new: &Variable) -> bool {
    match (&old.digest, &new.digest) {
        (Some(old_sum), Some(new_sum)) => old_sum == new_sum && old.type_name == new.type_name,
        _ => old == new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(repr: &str, digest: Option<&str>) -> Variable {
        Variable {
            name: "x".to_owned(),
            type_name: "T".to_owned(),
            repr: repr.to_owned(),
            size_bytes: None,
            shape: None,
            row_count: None,
            digest: digest.map(str::to_owned),
        }
    }

    #[test]
    fn sums_count_and_where_there_is_none_what_is_shown() {
        let same = |old: (&str, Option<&str>), new: (&str, Option<&str>)| {
            is_same(&variable(old.0, old.1), &variable(new.0, new.1))
        };
        assert!(same(("a", Some("1")), ("b", Some("1"))));
        assert!(!same(("a", Some("1")), ("a", Some("2"))));
        assert!(same(("a", None), ("a", None)));
        assert!(!same(("a", None), ("b", None)));
        assert!(!same(("a", Some("1")), ("a", None)));
    }
}
