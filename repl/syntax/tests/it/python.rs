//! The Python that has the last word.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

/// The checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs `python3` with the arguments, gives it `input`, and returns what it prints.
pub(crate) fn run(arguments: &[&Path], input: String) -> String {
    let mut child = Command::new("python3")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tests of this crate need a python3");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("python3 can be waited for");
    writer
        .join()
        .expect("the writer does not panic")
        .expect("python3 reads its input");
    assert!(output.status.success(), "python3 failed: {}", output.status);
    String::from_utf8(output.stdout).expect("python3 prints UTF-8")
}

/// The folder of the standard library.
pub(crate) fn library() -> PathBuf {
    let program = "import sysconfig; print(sysconfig.get_paths()['stdlib'])";
    PathBuf::from(run(&["-c".as_ref(), program.as_ref()], String::new()).trim())
}

/// All `.py` files below a folder, sorted, without installed packages.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().expect("the folder can be listed") {
            let entry = entry.expect("the folder can be listed");
            let path = entry.path();
            let name = entry.file_name();
            if name == "site-packages" || name == "dist-packages" {
                continue;
            }
            if entry.file_type().expect("the entry has a type").is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "py") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
