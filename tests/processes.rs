//! Who is alive on this host, from `/proc`.

use std::path::Path;

/// Engines that run a machine out of this store.
pub(crate) fn engines_of(store: &Path) -> Vec<u32> {
    let mark = format!("mem-path={}", store.display());
    let mapped = format!("{}/snapshots/", store.display());
    let mut found = Vec::new();
    for entry in Path::new("/proc").read_dir().unwrap().flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process may end while we look; then it is not alive.
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let says = |bytes: &[u8], words: &str| String::from_utf8_lossy(bytes).contains(words);
        let is_worker = read("comm") == b"vmrepl-machine\n" && says(&read("maps"), &mapped);
        if is_worker || says(&read("cmdline"), &mark) {
            found.push(id);
        }
    }
    found
}

/// The child of this process that is an engine; `None` when it has none, or has ended.
pub(crate) fn engine_child(parent: u32) -> Option<u32> {
    let children = format!("/proc/{parent}/task/{parent}/children");
    let mut ids: Vec<u32> = Vec::new();
    for id in std::fs::read_to_string(children).ok()?.split_whitespace() {
        ids.push(id.parse().ok()?);
    }
    ids.into_iter().find(|id| {
        std::fs::read_to_string(format!("/proc/{id}/comm"))
            .is_ok_and(|name| name.starts_with("qemu") || name.trim_end() == "vmrepl-machine")
    })
}

/// The most memory that this process ever had resident; 0 once it has ended.
pub(crate) fn peak_resident_bytes(id: u32) -> u64 {
    let kilobytes = status(id, "VmHWM");
    let number = kilobytes.trim_end_matches(" kB").parse::<u64>();
    number.unwrap_or(0) * 1024
}

/// What Linux tells of a process under this name; empty once it has ended.
pub(crate) fn status(id: u32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(found, rest)| (found == name).then(|| rest.trim().to_owned()))
        .unwrap_or_default()
}
