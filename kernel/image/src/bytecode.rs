//! The step `bytecode`: Python sources are compiled once, by the guest's own interpreter, instead of at every start.

use std::fs::File;
use std::path::Path;

use crate::cache::Work;
use crate::error::{ImageError, at};
use crate::key::{Key, KeyBuilder};
use crate::suite::Suite;
use crate::tool::Tool;
use crate::tree;

const SCRIPT: &str = include_str!("bytecode.py");

/// The most compilers at once; each takes a processor.
const JOBS_MAX: usize = 8;

/// The key of the compiled files; `sources` is the key of the tree that they are compiled from.
pub(crate) fn key(interpreter: Key, sources: Key) -> Key {
    KeyBuilder::new("bytecode", 1)
        .text("script", SCRIPT)
        .key("interpreter", interpreter)
        .key("sources", sources)
        .finish()
}

/// Compiles what is in the `folders` of `sources` with the interpreter of the Debian tree, and makes `tree/`: the
/// compiled files alone, in the places that Python looks for them.
pub(crate) fn make(
    suite: Suite,
    debian: &Path,
    sources: &Path,
    folders: &[String],
    work: &mut Work<'_>,
) -> Result<(), ImageError> {
    let mut paths = Vec::new();
    for folder in folders
        .iter()
        .filter(|folder| sources.join(folder).is_dir())
    {
        for entry in tree::walk(&sources.join(folder))? {
            let is_source =
                entry.kind.is_file() && entry.path.extension().is_some_and(|end| end == "py");
            if let (true, Some(path)) =
                (is_source, Path::new(folder).join(&entry.relative).to_str())
            {
                paths.push(path.to_owned());
            }
        }
    }
    let target = work.staging.join("tree");
    std::fs::create_dir(&target).map_err(at("making the folder", &target))?;
    let list = work.staging.join("list");
    std::fs::write(&list, paths.join("\n")).map_err(at("writing", &list))?;
    let input = File::open(&list).map_err(at("reading", &list))?;
    let jobs = std::thread::available_parallelism().map_or(1, |count| count.get().min(JOBS_MAX));
    let tool = interpreter(suite, debian)
        .args(["-I", "-S", "-X", "utf8", "-c", SCRIPT])
        .args([sources, &target, Path::new("/")])
        .arg(jobs.to_string())
        .input(input);
    let mut done = 0;
    let total = paths.len();
    let progress = &mut *work.progress;
    tool.run_lines(work.cancel, &mut |_, line| {
        if line.starts_with("compiled") {
            done += 20;
            progress.advanced(done, &format!("{done} of {total} files"));
        }
    })
    .map_err(ImageError::tool("compiling the guest's Python files"))?;
    tree::remove_file(&list)
}

/// The guest's Python, started by the guest's own loader: it needs neither a change of root nor the host's libraries.
fn interpreter(suite: Suite, debian: &Path) -> Tool {
    let libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib"]
        .map(|folder| debian.join(folder).display().to_string());
    Tool::new(
        &debian
            .join("usr/lib64/ld-linux-x86-64.so.2")
            .display()
            .to_string(),
        "python3",
    )
    .env("PYTHONHOME", debian.join("usr"))
    .env("PYTHONDONTWRITEBYTECODE", "1")
    .arg("--library-path")
    .arg(libraries.join(":"))
    .arg(debian.join(format!("usr/bin/python3.{}", suite.python_minor)))
}
