//! What a person may do about a cell that failed, from what it said.

use vmrepl_wire::cell::{Answer, Status};

const NETWORK: [&str; 8] = [
    "gaierror",
    "URLError",
    "ConnectionRefusedError",
    "ConnectionError",
    "NewConnectionError",
    "ConnectError",
    "MaxRetryError",
    "HTTPError",
];

/// A hint for the answer of a cell; `None` when there is nothing to say.
#[must_use]
pub fn hint_for(answer: &Answer) -> Option<String> {
    match answer.status {
        Some(Status::RunnerLost | Status::MachineLost) => {
            return Some(
                "the names of this session are gone; the next run starts from the template again"
                    .to_owned(),
            );
        }
        Some(Status::MemoryExceeded) => {
            return Some(
                "a recipe with a larger `memory` gives more; see: vmrepl prepare --help".to_owned(),
            );
        }
        _ => {}
    }
    let name = answer.error_name.as_deref()?;
    let value = answer.error_value.as_deref().unwrap_or("");
    if name == "ModuleNotFoundError" {
        let module = value.split('\'').nth(1).unwrap_or("NAME");
        let package = module.split('.').next().unwrap_or(module);
        return Some(format!(
            "a package: vmrepl prepare --with {package}, then --template python+{package}; a module of yours: --file {package}.py"
        ));
    }
    let unreachable = value.contains("Network is unreachable")
        || value.contains("Temporary failure in name resolution");
    if NETWORK.contains(&name) || unreachable {
        return Some("the guest has no network; bring files in with --file".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised(name: &str, value: &str) -> Answer {
        Answer {
            error_name: Some(name.to_owned()),
            error_value: Some(value.to_owned()),
            ..Answer::default()
        }
    }

    #[test]
    fn missing_modules_and_networks_have_hints() {
        let hint = hint_for(&raised("ModuleNotFoundError", "No module named 'polars.x'")).unwrap();
        assert!(hint.contains("--with polars,"), "{hint}");
        assert!(
            hint_for(&raised("gaierror", "[Errno -3]"))
                .unwrap()
                .contains("--file")
        );
        assert!(hint_for(&raised("OSError", "[Errno 101] Network is unreachable")).is_some());
        assert_eq!(hint_for(&raised("ValueError", "x")), None);
        assert_eq!(hint_for(&Answer::default()), None);
    }
}
