//! Content keys: a step is known by the hash of everything that goes into it.

use std::fmt;

/// The BLAKE3 hash of a step's inputs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(blake3::Hash);

/// Collects a step's inputs. Each is stored with its name and length, so no two lists of inputs look alike.
#[derive(Debug)]
pub(crate) struct KeyBuilder(blake3::Hasher);

impl Key {
    /// Returns the whole key, 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.0.to_hex().to_string()
    }

    /// Returns the first 20 digits: enough (80 bits) to name a folder in a cache that only its owner writes.
    #[must_use]
    pub fn short(self) -> String {
        self.0.to_hex()[..20].to_owned()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.short())
    }
}

impl KeyBuilder {
    /// Starts the key of a step; `generation` is raised when the step's code makes something else of the same inputs.
    pub(crate) fn new(step: &str, generation: u32) -> Self {
        Self(blake3::Hasher::new())
            .text("step", step)
            .text("generation", &generation.to_string())
    }

    pub(crate) fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        for part in [name.as_bytes(), value] {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
        self
    }

    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        self.bytes(name, value.as_bytes())
    }

    pub(crate) fn list<'a>(self, name: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let values: Vec<&str> = values.into_iter().collect();
        let count = values.len().to_string();
        values
            .into_iter()
            .fold(self.text(name, &count), |key, value| {
                key.text("item", value)
            })
    }

    pub(crate) fn key(self, name: &str, value: Key) -> Self {
        self.bytes(name, value.0.as_bytes())
    }

    pub(crate) fn finish(self) -> Key {
        Key(self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_changes_exactly_when_an_input_changes() {
        let make = |generation, a: &str, list: &[&str]| {
            KeyBuilder::new("s", generation)
                .text("a", a)
                .list("l", list.iter().copied())
                .finish()
        };
        let first = make(1, "x", &["p", "q"]);
        assert_eq!(first, make(1, "x", &["p", "q"]));
        for other in [
            make(2, "x", &["p", "q"]),
            make(1, "y", &["p", "q"]),
            make(1, "x", &["q", "p"]),
            make(1, "x", &["pq"]),
            make(1, "x", &["p", "q", ""]),
        ] {
            assert_ne!(first, other);
        }
    }
}
