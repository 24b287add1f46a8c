//! What a build needs of the host, and whether it is there.

use serde::Serialize;

use crate::progress::Cancel;
use crate::tool::{Tool, ToolError};

/// One program that building an image needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolCheck {
    /// The program.
    pub name: &'static str,
    /// Its version as it states it, or `installed` when it states none; nothing when it is missing.
    pub found: Option<String>,
    /// The Debian package that has it.
    pub debian_package: &'static str,
    /// What it does in a build.
    pub needed_for: &'static str,
    /// Whether another listed program can take its place, or some hosts do without.
    pub optional: bool,
}

struct Need {
    name: &'static str,
    command: &'static [&'static str],
    debian_package: &'static str,
    needed_for: &'static str,
    optional: bool,
}

const NEEDS: [Need; 8] = [
    Need {
        name: "mmdebstrap",
        command: &["mmdebstrap", "--version"],
        debian_package: "mmdebstrap",
        needed_for: "making the guest's tree of Debian packages",
        optional: false,
    },
    Need {
        name: "newuidmap",
        command: &["newuidmap"],
        debian_package: "uidmap",
        needed_for: "making that tree as an ordinary user (root does without)",
        optional: true,
    },
    Need {
        name: "apt-config",
        command: &["apt-config", "--version"],
        debian_package: "apt",
        needed_for: "reaching the Debian archives the way that this host does",
        optional: false,
    },
    Need {
        name: "dpkg-deb",
        command: &["dpkg-deb", "--version"],
        debian_package: "dpkg",
        needed_for: "unpacking Linux",
        optional: false,
    },
    Need {
        name: "tar",
        command: &["tar", "--version"],
        debian_package: "tar",
        needed_for: "unpacking the guest's tree",
        optional: false,
    },
    Need {
        name: "pip",
        command: &["python3", "-m", "pip", "--version"],
        debian_package: "python3-pip",
        needed_for: "the Python packages of a recipe (a recipe without any does without)",
        optional: true,
    },
    Need {
        name: "mkfs.erofs",
        command: &["mkfs.erofs", "--version"],
        debian_package: "erofs-utils",
        needed_for: "making the root file system",
        optional: false,
    },
    Need {
        name: "mksquashfs",
        command: &["mksquashfs", "-version"],
        debian_package: "squashfs-tools",
        needed_for: "making the root file system where there is no mkfs.erofs",
        optional: true,
    },
];

/// Looks for every program that a build needs. Each is started once, to state its version.
#[must_use]
pub fn host_tools() -> Vec<ToolCheck> {
    NEEDS
        .iter()
        .map(|need| ToolCheck {
            name: need.name,
            found: version(need),
            debian_package: need.debian_package,
            needed_for: need.needed_for,
            optional: need.optional,
        })
        .collect()
}

/// Whether a program is on the path.
pub(crate) fn is_installed(program: &str) -> bool {
    let tool = Tool::new(program, "").arg("--version");
    !matches!(tool.run(&Cancel::new()), Err(ToolError::Missing { .. }))
}

fn version(need: &Need) -> Option<String> {
    let mut first = None;
    let tool = Tool::new(need.command[0], need.debian_package).args(&need.command[1..]);
    let ran = tool.run_lines(&Cancel::new(), &mut |_, line| {
        first.get_or_insert_with(|| line.to_owned());
    });
    let states = |line: &String| line.contains(|c: char| c.is_ascii_digit());
    match ran {
        Err(ToolError::Missing { .. }) => None,
        // Started by an interpreter that lacks the module.
        Err(ToolError::Failed { .. }) if need.command[0] == "python3" => None,
        Ok(()) => Some(
            first
                .filter(states)
                .unwrap_or_else(|| "installed".to_owned()),
        ),
        Err(_) => Some("installed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_looked_for_and_named_with_its_package() {
        let tools = host_tools();
        assert_eq!(tools.len(), NEEDS.len());
        let tar = tools.iter().find(|tool| tool.name == "tar").unwrap();
        assert!(tar.found.as_ref().unwrap().contains("tar"), "{tar:?}");
        assert!(!is_installed("no-such-program-here"));
    }
}
