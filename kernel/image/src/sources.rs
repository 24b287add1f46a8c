//! Where the host gets its Debian packages from: the same places serve the guest, so no address is written down here.

use std::path::{Path, PathBuf};

use crate::error::ImageError;
use crate::progress::Cancel;
use crate::suite::Suite;
use crate::tool::Tool;

/// What mmdebstrap is told about apt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sources {
    /// One-line entries (`deb URI SUITE main`); empty when the host has none for this release, and mmdebstrap's own
    /// defaults apply.
    pub(crate) lines: Vec<String>,
    /// The host's settings of the way there: proxies, certificates, retries.
    pub(crate) options: Vec<String>,
}

impl Sources {
    /// Reads the host's configuration.
    pub(crate) fn of_host(suite: Suite, cancel: &Cancel) -> Result<Self, ImageError> {
        let dump = Tool::new("apt-config", "apt")
            .arg("dump")
            .output(cancel)
            .map_err(ImageError::tool("reading the host's apt settings"))?;
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        if let Ok(folder) = std::fs::read_dir("/etc/apt/sources.list.d") {
            let mut parts: Vec<PathBuf> = folder
                .filter_map(|entry| Some(entry.ok()?.path()))
                .collect();
            parts.sort();
            files.extend(parts);
        }
        let mut lines = Vec::new();
        for file in files {
            if let Ok(text) = std::fs::read_to_string(&file) {
                lines.extend(entries(&file, &text, suite));
            }
        }
        Ok(Self {
            lines,
            options: dump.iter().filter(|line| is_way(line)).cloned().collect(),
        })
    }
}

/// Keeps the settings that say how to reach an archive, and none that say what to do on this host.
fn is_way(line: &str) -> bool {
    const WAYS: [&str; 8] = [
        "Acquire::http::",
        "Acquire::https::",
        "Acquire::Retries",
        "Acquire::ForceIPv4",
        "Acquire::ForceIPv6",
        "Acquire::Check-Date",
        "Acquire::Check-Valid-Until",
        "Acquire::Max-ValidTime",
    ];
    // An empty value is a node of apt's tree, not a setting. Proxy detection runs a program that a guest's tree lacks.
    WAYS.iter().any(|way| line.starts_with(way))
        && !line.ends_with(" \"\";")
        && !line.contains("Proxy-Auto")
}

/// Returns the entries of one sources file that are Debian's own for this release.
fn entries(file: &Path, text: &str, suite: Suite) -> Vec<String> {
    match file.extension().and_then(|end| end.to_str()) {
        Some("list") => text
            .lines()
            .filter_map(|line| one_line(line, suite))
            .collect(),
        Some("sources") => text
            .split("\n\n")
            .flat_map(|stanza| deb822(stanza, suite))
            .collect(),
        _ => Vec::new(),
    }
}

/// `deb [options] URI suite component...`
fn one_line(line: &str, suite: Suite) -> Option<String> {
    let rest = line
        .trim()
        .strip_prefix("deb")?
        .strip_prefix([' ', '\t'])?
        .trim();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, name) = (words.next()?, words.next()?);
    let components: Vec<&str> = words.collect();
    let signed_by = options
        .split_whitespace()
        .find_map(|option| option.strip_prefix("signed-by="));
    entry(uri, name, &components, signed_by, suite)
}

/// A stanza of `Field: value` lines; a line that starts with a blank goes on.
fn deb822(stanza: &str, suite: Suite) -> Vec<String> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in stanza.lines().filter(|line| !line.starts_with('#')) {
        if let (true, Some((_, value))) = (line.starts_with([' ', '\t']), fields.last_mut()) {
            value.push(' ');
            value.push_str(line.trim());
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let field = |name: &str| {
        let found = fields.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    let words = |name: &str| field(name).split_whitespace().collect::<Vec<&str>>();
    if !words("types").contains(&"deb") || ["no", "false", "0"].contains(&field("enabled")) {
        return Vec::new();
    }
    // A key written into the stanza itself is left for mmdebstrap to find among the host's.
    let signed_by =
        Some(field("signed-by")).filter(|path| path.starts_with('/') && !path.contains(' '));
    let mut lines = Vec::new();
    for uri in words("uris") {
        for name in words("suites") {
            lines.extend(entry(uri, name, &words("components"), signed_by, suite));
        }
    }
    lines
}

/// Debian's own archives have these suite names, a component `main` and, if any, Debian's key.
fn entry(
    uri: &str,
    name: &str,
    components: &[&str],
    signed_by: Option<&str>,
    suite: Suite,
) -> Option<String> {
    let own = ["", "-updates", "-security"]
        .iter()
        .any(|end| name == format!("{}{end}", suite.name));
    let debians_key = signed_by.is_none_or(|key| key.contains("debian-archive"));
    if !own || !debians_key || !components.contains(&"main") || uri.starts_with("cdrom:") {
        return None;
    }
    let options = signed_by.map_or(String::new(), |key| format!("[signed-by={key}] "));
    Some(format!("deb {options}{uri} {name} main"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, text: &str) -> Vec<String> {
        entries(Path::new(file), text, Suite::DEFAULT)
    }

    #[test]
    fn deb822_stanzas_of_the_release_are_taken() {
        let text = "# comment\nTypes: deb deb-src\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n trixie\nComponents: main contrib\n\
                    Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                    Types: deb\nURIs: http://other.test/\nSuites: bookworm\nComponents: stable\nSigned-By: /etc/apt/keyrings/other.gpg\n\n\
                    Enabled: no\nTypes: deb\nURIs: http://off.test/\nSuites: bookworm\nComponents: main\n";
        let key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        assert_eq!(
            read("debian.sources", text),
            [
                format!("deb {key} http://mirror.test/debian bookworm main"),
                format!("deb {key} http://mirror.test/debian bookworm-updates main"),
            ]
        );
    }

    #[test]
    fn one_line_entries_of_the_release_are_taken() {
        let text = "deb http://m.test/debian bookworm main contrib # why\n#deb http://off.test bookworm main\n\
                    deb [arch=amd64 signed-by=/k/debian-archive.gpg] http://m.test/security bookworm-security main\n\
                    deb-src http://m.test/debian bookworm main\ndeb cdrom:[Debian]/ bookworm main\ndeb http://x.test sid main\n";
        assert_eq!(
            read("sources.list", text),
            [
                "deb http://m.test/debian bookworm main",
                "deb [signed-by=/k/debian-archive.gpg] http://m.test/security bookworm-security main",
            ]
        );
        assert!(read("sources.list.disabled", text).is_empty());
    }

    #[test]
    fn only_settings_of_the_way_are_taken() {
        for (line, wanted) in [
            ("Acquire::http::Proxy \"http://p.test:3128\";", true),
            ("Acquire::Check-Date \"false\";", true),
            ("Acquire::http \"\";", false),
            ("Acquire::http::Proxy-Auto-Detect \"/usr/bin/x\";", false),
            ("DPkg::Post-Invoke:: \"rm\";", false),
            ("Acquire::IndexTargets::deb::X \"1\";", false),
        ] {
            assert_eq!(is_way(line), wanted, "{line}");
        }
    }
}
