//! A folder of sessions for one test, and the program as it works in it.

use serde_json::Value;

use crate::disk::Copy;
use crate::ground::TEMPLATE;
use crate::process::{Ended, Run};

/// A home whose sessions are this test's own.
pub(crate) struct Home(pub(crate) Copy, &'static str);

impl Home {
    pub(crate) fn new() -> Self {
        Self::of(TEMPLATE)
    }

    /// With another template.
    pub(crate) fn of(template: &'static str) -> Self {
        Self(Copy::of(template), template)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::on(self.1, args).env("VMREPL_HOME", self.0.home())
    }

    /// A cell of a session.
    pub(crate) fn cell(&self, session: &str, code: &str) -> Ended {
        self.run(&["-s", session, "-c", code]).finish()
    }

    /// A command that is no run, and has no template.
    pub(crate) fn command(&self, args: &[&str]) -> Ended {
        Run::bare(args).env("VMREPL_HOME", self.0.home()).finish()
    }

    pub(crate) fn log(&self, session: &str) -> Vec<Value> {
        let log = self.command(&["log", session, "--json"]);
        assert_eq!(log.exit(), 0, "{log}");
        serde_json::from_str(&log.text()).unwrap()
    }
}

/// The cells that led to where the session stands.
pub(crate) fn way(log: &[Value]) -> Vec<&Value> {
    let find = |number: u64| log.iter().find(|cell| cell["cell"] == number);
    let mut at = log.iter().find(|cell| cell["is_here"] == true);
    let mut way = Vec::new();
    while let Some(cell) = at {
        way.push(cell);
        at = cell["parent"].as_u64().and_then(find);
    }
    way
}
