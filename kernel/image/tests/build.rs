//! Real builds, with the host's tools and the Debian and Python archives: about 150 MB to download and a minute.
//!
//! They run when asked for: `cargo test -p vmrepl-image --test build -- --ignored`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use vmrepl_image::{Builder, Cancel, Image, ImageError, Progress, Recipe, Silent, Step};

/// Counts what was made anew, and cancels the build at a named note.
struct Watch<'a> {
    made: usize,
    cancel_at: Option<(&'a str, Cancel)>,
}

impl Progress for Watch<'_> {
    fn started(&mut self, _step: &Step) {}

    fn advanced(&mut self, _done: u64, note: &str) {
        if let Some((at, cancel)) = &self.cancel_at
            && note == *at
        {
            cancel.cancel();
        }
    }

    fn finished(&mut self, cached: bool, _took: Duration) {
        self.made += usize::from(!cached);
    }
}

fn entries(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

/// The processes that have the folder's name among their arguments.
fn processes_in(folder: &Path) -> Vec<String> {
    let name = folder.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let command = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        command.contains(name).then_some(command)
    });
    processes.collect()
}

fn cancelled_at(note: &str, recipe: &Recipe, cache: &Path) {
    let cancel = Cancel::new();
    let mut watch = Watch {
        made: 0,
        cancel_at: Some((note, cancel.clone())),
    };
    let result = Builder::new(cache.to_owned()).build(recipe, &mut watch, &cancel);
    assert!(
        matches!(result, Err(ImageError::Cancelled)),
        "at `{note}`: {result:?}"
    );
    assert_eq!(entries(&cache.join("staging")), 0, "at `{note}`");
    assert_eq!(entries(&cache.join("steps")), watch.made, "at `{note}`");
    assert_eq!(processes_in(cache), [""; 0], "at `{note}`");
}

fn build(recipe: &Recipe, cache: &Path) -> Image {
    Builder::new(cache.to_owned())
        .build(recipe, &mut Silent, &Cancel::new())
        .unwrap()
}

#[test]
#[ignore = "downloads 150 MB; run with --ignored"]
fn base_and_python_build_cancel_share_and_cache() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path();
    let base = Recipe::builtin("base").unwrap();
    for note in [
        "extracting",
        "setting up the essential packages",
        "setting up the other packages",
        "unpacking",
    ] {
        cancelled_at(note, &base, cache);
    }
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| build(&base, cache));
        let two = scope.spawn(|| build(&base, cache));
        (one.join().unwrap(), two.join().unwrap())
    });
    assert_eq!(one, two, "two builders at once make one image");
    assert_eq!(
        Builder::new(cache.to_owned()).find(&base).unwrap(),
        Some(one.clone())
    );
    let mut watch = Watch {
        made: 0,
        cancel_at: None,
    };
    Builder::new(cache.to_owned())
        .build(&base, &mut watch, &Cancel::new())
        .unwrap();
    assert_eq!(watch.made, 0);
    assert!(
        one.linux_version.ends_with("-cloud-amd64"),
        "{}",
        one.linux_version
    );
    assert!(
        one.manifest
            .debian
            .iter()
            .any(|package| package.name == "python3.11")
    );
    assert!(one.manifest.python.is_empty());

    let python = build(&Recipe::builtin("python").unwrap(), cache);
    assert_eq!(
        python.manifest.unpinned_python(),
        Vec::<&vmrepl_image::Package>::new()
    );
    assert_eq!(python.manifest.files.vmlinux, one.manifest.files.vmlinux);
    assert_ne!(python.digest, one.digest);

    let mut more = base.clone();
    more.env.insert("A".to_owned(), "1".to_owned());
    assert_eq!(Builder::new(cache.to_owned()).find(&more).unwrap(), None);
    let more = build(&more, cache);
    assert_ne!(
        more.manifest.files.root.blake3,
        one.manifest.files.root.blake3
    );
    assert_eq!(more.manifest.files.initramfs, one.manifest.files.initramfs);
    assert_eq!(entries(&cache.join("staging")), 0);
}
