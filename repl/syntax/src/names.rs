//! Which names a cell binds or deletes in the user's namespace.
//!
//! The rules are those of the guest's runner. Functions, classes and lambdas hide what they bind, but for what they
//! declare `global`; comprehensions hide their targets, but not `:=`. The last word on a name counts.

#[cfg(feature = "rustpython")]
pub mod rustpython;
mod tree;

use std::collections::{BTreeSet, HashSet};

/// What running a cell can do to the names of the user's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Names that it binds, in Unicode's form NFKC as Python keeps them.
    pub bound: BTreeSet<String>,
    /// Names that it deletes and does not bind again.
    pub deleted: BTreeSet<String>,
    /// Whether `import *` hides some.
    pub star: bool,
}

/// Finds the names that running `source` as a cell can bind or delete.
///
/// `None` when the host cannot tell, because the text is no Python that it knows, or is too large or too deep: the
/// guest decides then.
pub fn names(source: &str) -> Option<Names> {
    let reading = crate::parse::read(source)?;
    reading
        .parsed
        .has_valid_syntax()
        .then(|| tree::names_of(reading.parsed.suite()))
}

/// Which names bind at the top.
#[derive(Debug, Clone, Copy)]
enum Scope {
    /// All of them.
    Top,
    /// Those that this function or class declares `global`, by its place in the list.
    Inner(usize),
}

/// Names while a tree is walked.
#[derive(Default)]
struct Found {
    names: Names,
    globals: Vec<HashSet<String>>,
}

impl Found {
    fn open_scope(&mut self) -> Scope {
        self.globals.push(HashSet::new());
        Scope::Inner(self.globals.len() - 1)
    }

    fn bind(&mut self, name: &str, scope: Scope) {
        let is_ours = match scope {
            Scope::Top => true,
            Scope::Inner(at) => self.globals[at].contains(name),
        };
        if is_ours && !self.names.bound.contains(name) {
            self.names.bound.insert(name.to_owned());
            self.names.deleted.remove(name);
        }
    }

    /// What a function deletes goes when it is called, if ever.
    fn delete(&mut self, name: &str, scope: Scope) {
        if let Scope::Top = scope {
            self.names.deleted.insert(name.to_owned());
            self.names.bound.remove(name);
        }
    }

    fn declare_global(&mut self, name: &str, scope: Scope) {
        if let Scope::Inner(at) = scope {
            self.globals[at].insert(name.to_owned());
        }
    }

    /// Takes one name of an import; `import a.b` binds `a`.
    fn import(&mut self, name: &str, alias: Option<&str>, scope: Scope) {
        let first = name.split('.').next().unwrap_or(name);
        self.bind(alias.unwrap_or(first), scope);
    }

    fn import_from(&mut self, name: &str, alias: Option<&str>, scope: Scope) {
        if name == "*" {
            self.names.star = true;
        } else {
            self.bind(alias.unwrap_or(name), scope);
        }
    }
}
