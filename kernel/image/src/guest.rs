//! What the guest gets from this project: the agent and `exec`, static binaries, and the runner's Python files. The build script
//! makes and embeds them.

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::Elf;

    #[test]
    fn the_binaries_are_static() {
        for (name, binary) in [("the agent", AGENT), ("exec", EXEC)] {
            let elf = Elf::parse(binary).unwrap();
            assert!(
                !elf.has_interpreter().unwrap(),
                "{name} asks for a dynamic loader"
            );
        }
    }

    #[test]
    fn the_runner_is_python_and_nothing_compiled() {
        assert!(
            RUNNER
                .iter()
                .all(|(path, _)| !path.contains("__pycache__") && !path.starts_with('/'))
        );
        assert!(RUNNER.is_sorted_by(|a, b| a.0 < b.0));
    }
}
