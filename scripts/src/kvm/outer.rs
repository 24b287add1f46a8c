//! The outer guest: made once of Debian's packages, kept outside the tree and named by what goes into it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Raised when the way of making it changes in more than the two scripts.
const VERSION: u32 = 1;
const SCRIPT: &str = include_str!("outer.sh");
const INIT: &str = include_str!("init.sh");

/// What is inside, beside what these depend on: what the lane's own script needs, then what tests and people at its
/// shell need. Python in full, since the tests run the guest's runner on the host.
const PACKAGES: [&str; 20] = [
    "busybox-static",
    "bash",
    "coreutils",
    "util-linux",
    "mount",
    "e2fsprogs",
    "libc-bin",
    "libgcc-s1",
    "python3",
    "procps",
    "erofs-utils",
    "grep",
    "sed",
    "mawk",
    "findutils",
    "diffutils",
    "tar",
    "gzip",
    "strace",
    "less",
];

/// The files of an outer guest.
#[derive(Debug)]
pub(crate) struct Outer {
    folder: PathBuf,
}

impl Outer {
    /// Finds it, or makes it first, which takes a quarter of a minute and the archives.
    pub(crate) fn ready(cache: &Path) -> Result<Self> {
        let suite = suite(&fs::read_to_string("/etc/os-release").unwrap_or_default())?;
        let key = [
            &VERSION.to_string(),
            SCRIPT,
            INIT,
            &PACKAGES.join(","),
            &suite,
        ]
        .join("\0");
        let name = format!(
            "outer-{suite}-{}",
            &blake3::hash(key.as_bytes()).to_hex()[..16]
        );
        let folder = cache.join(&name);
        if !folder.exists() {
            let lock = File::create(cache.join("lock")).context("locking the lane's cache")?;
            lock.lock()
                .context("waiting for another lane that makes the outer guest")?;
            if !folder.exists() {
                make(cache, &suite, &folder)?;
            }
        }
        Ok(Self { folder })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn make(cache: &Path, suite: &str, folder: &Path) -> Result<()> {
    super::lane::need(&[
        ("mmdebstrap", "mmdebstrap"),
        ("mkfs.erofs", "erofs-utils"),
        ("dpkg-deb", "dpkg"),
        ("unshare", "util-linux"),
    ])?;
    let staging = cache.join("staging");
    // A predecessor that was killed has left it; it holds plain files only.
    if staging.exists() {
        fs::remove_dir_all(&staging).with_context(|| format!("removing {}", staging.display()))?;
    }
    fs::create_dir(&staging).with_context(|| format!("making {}", staging.display()))?;
    eprintln!("kvm: making the outer guest of {suite} packages");
    fs::write(staging.join("init"), INIT).context("writing the init")?;
    let status = Command::new("bash")
        .args(["-c", SCRIPT, "outer.sh", suite, "init"])
        .args(PACKAGES)
        .current_dir(&staging)
        .stdin(Stdio::null())
        .status()
        .context("starting bash")?;
    if !status.success() {
        bail!(
            "making the outer guest of {suite} packages failed, see above; its remains are in {}",
            staging.display()
        );
    }
    let made = cache.join("made");
    fs::create_dir_all(&made).with_context(|| format!("making {}", made.display()))?;
    for name in ["vmlinuz", "initrd.img", "root.erofs", "release"] {
        fs::rename(staging.join(name), made.join(name))
            .with_context(|| format!("outer.sh made no {name}"))?;
    }
    fs::rename(&made, folder).with_context(|| format!("publishing {}", folder.display()))?;
    fs::remove_dir_all(&staging).with_context(|| format!("removing {}", staging.display()))
}

/// The outer guest has the host's release, since it runs programs that were built on the host.
fn suite(os_release: &str) -> Result<String> {
    let field = |name: &str| {
        let mut lines = os_release.lines();
        lines.find_map(|line| {
            Some(
                line.strip_prefix(name)?
                    .strip_prefix('=')?
                    .trim_matches('"')
                    .to_owned(),
            )
        })
    };
    match (field("ID").as_deref(), field("VERSION_CODENAME")) {
        (Some("debian"), Some(suite)) => Ok(suite),
        (id, _) => bail!(
            "the lane is made of the packages of the release that built the tests, and knows Debian's; this host is {}. \
             Run it on Debian or in a container of it",
            id.unwrap_or("unknown: /etc/os-release has no ID")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::suite;

    #[test]
    fn the_release_is_the_hosts() {
        assert_eq!(
            suite("NAME=\"x\"\nVERSION_CODENAME=bookworm\nID=debian\n").unwrap(),
            "bookworm"
        );
        assert!(
            suite("ID=ubuntu\nVERSION_CODENAME=noble\n")
                .unwrap_err()
                .to_string()
                .contains("ubuntu")
        );
        suite("").unwrap_err();
    }
}
