//! The step `linux`: Debian's Linux for clouds, its ELF file extracted and the modules that a guest loads.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bzimage::{self, BzImageError, Compression};
use crate::cache::Work;
use crate::debian::{Package, mmdebstrap, with_sources};
use crate::error::{ImageError, at};
use crate::key::{Key, KeyBuilder};
use crate::limits::BZIMAGE_BYTES;
use crate::modules;
use crate::recipe::Recipe;
use crate::sources::Sources;
use crate::suite::Suite;
use crate::tool::Tool;
use crate::tree;

/// The package that stands for the newest Linux; it depends on the real one.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Downloads the real package. The target `$1` holds apt's lists; the folder to download to comes by the environment.
const DOWNLOAD: &str = r#"set -e
cd "$VMREPL_LINUX"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
package="$(apt-cache depends --important "$VMREPL_PACKAGE" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n1)"
test -n "$package" || { echo "the archive has no $VMREPL_PACKAGE" >&2; exit 1; }
apt-get download "$package"
"#;

/// What was taken from the Linux package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linux {
    /// What `uname -r` says in the guest.
    pub release: String,
    /// The Debian package.
    pub package: Package,
}

/// The key of the extracted Linux. The package's version is no part of it: the newest one is taken.
pub(crate) fn key(recipe: &Recipe) -> Key {
    KeyBuilder::new("linux", 1)
        .text("suite", &recipe.suite)
        .text("package", PACKAGE)
        .list("modules", modules::WANTED)
        .finish()
}

/// Makes `vmlinux`, `modules/NN-NAME.ko` in load order, and `linux.json`.
pub(crate) fn make(recipe: &Recipe, suite: Suite, work: &mut Work<'_>) -> Result<(), ImageError> {
    let download = work.staging.join("download");
    std::fs::create_dir(&download).map_err(at("making the folder", &download))?;
    work.progress.advanced(0, "downloading");
    fetch(recipe, suite, &download, work)?;
    let package = only_file(&download, "", ".deb")?;
    work.progress.advanced(1, "unpacking");
    let unpacked = work.staging.join("unpacked");
    Tool::new("dpkg-deb", "dpkg")
        .arg("--extract")
        .args([&package, &unpacked])
        .run(work.cancel)
        .map_err(ImageError::tool("unpacking the linux package"))?;
    let boot = only_file(&unpacked.join("boot"), "vmlinuz-", "")?;
    let release = boot
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix("vmlinuz-"))
        .unwrap_or_default()
        .to_owned();
    work.progress.advanced(2, "extracting vmlinux");
    extract(&boot, &work.staging.join("vmlinux"), work)?;
    work.progress.advanced(3, "collecting modules");
    let library = unpacked.join("lib/modules").join(&release);
    modules::collect(&library, &work.staging.join("modules"), work)?;
    let linux = Linux {
        release,
        package: package_of(&package, work)?,
    };
    let path = work.staging.join("linux.json");
    let json = serde_json::to_vec_pretty(&linux).map_err(std::io::Error::from);
    json.and_then(|json| std::fs::write(&path, json))
        .map_err(at("writing", &path))?;
    crate::cache::remove(&unpacked)?;
    crate::cache::remove(&download)
}

/// mmdebstrap sets apt up for the release, whatever the host's own is, and installs nothing: no privilege is needed.
fn fetch(
    recipe: &Recipe,
    suite: Suite,
    download: &Path,
    work: &Work<'_>,
) -> Result<(), ImageError> {
    let sources = Sources::of_host(suite, work.cancel)?;
    let is_root = rustix::process::geteuid().is_root();
    let tool = mmdebstrap(&sources, work.cancel)
        .arg(if is_root {
            "--mode=root"
        } else {
            "--mode=chrootless"
        })
        .args(["--variant=custom", "--format=null", "--architectures=amd64"])
        .arg(format!("--customize-hook={DOWNLOAD}"))
        .env("VMREPL_LINUX", download)
        .env("VMREPL_PACKAGE", PACKAGE)
        .env("TMPDIR", work.staging)
        .args([&recipe.suite, "/dev/null"]);
    with_sources(tool, &sources, work)?
        .run(work.cancel)
        .map_err(ImageError::tool(format!("downloading {PACKAGE}")))
}

/// Writes the ELF file that is packed into a boot image.
fn extract(boot: &Path, vmlinux: &Path, work: &Work<'_>) -> Result<(), ImageError> {
    let wrong = |source: BzImageError| ImageError::BzImage {
        path: boot.to_owned(),
        source,
    };
    let image = read_limited(boot, BZIMAGE_BYTES)?;
    let payload = bzimage::payload(&image).map_err(wrong)?;
    let linux = match payload.compression {
        Compression::None => payload.bytes.to_vec(),
        Compression::Lz4 => bzimage::unpack_lz4(payload.bytes).map_err(wrong)?,
        Compression::Host {
            program,
            debian_package,
        } => unpack(
            program,
            debian_package,
            payload.bytes,
            work,
            crate::limits::VMLINUX_BYTES,
        )?,
    };
    bzimage::check(&linux, payload.expected_bytes).map_err(wrong)?;
    std::fs::write(vmlinux, linux).map_err(at("writing", vmlinux))
}

/// Unpacks bytes with a program of the host that reads standard input and writes standard output.
pub(crate) fn unpack(
    program: &str,
    debian_package: &'static str,
    bytes: &[u8],
    work: &Work<'_>,
    limit_bytes: u64,
) -> Result<Vec<u8>, ImageError> {
    let (packed, plain) = (work.staging.join("packed"), work.staging.join("plain"));
    std::fs::write(&packed, bytes).map_err(at("writing", &packed))?;
    let input = File::open(&packed).map_err(at("reading", &packed))?;
    let output = File::create(&plain).map_err(at("writing", &plain))?;
    Tool::new(program, debian_package)
        .args(["-d", "-c"])
        .input(input)
        .output_to(output)
        .run(work.cancel)
        .map_err(ImageError::tool("unpacking a part of linux"))?;
    let bytes = read_limited(&plain, limit_bytes)?;
    tree::remove_file(&packed)?;
    tree::remove_file(&plain)?;
    Ok(bytes)
}

/// Reads a file that may not be longer than `limit_bytes`.
pub(crate) fn read_limited(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit_bytes + 1).read_to_end(&mut bytes))
        .map_err(at("reading", path))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(ImageError::unusable(
            format!("reading `{}`", path.display()),
            format!("it is longer than {limit_bytes} bytes"),
        ));
    }
    Ok(bytes)
}

/// Returns the one file of a folder whose name starts and ends so.
fn only_file(folder: &Path, start: &str, end: &str) -> Result<PathBuf, ImageError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(at("reading the folder", folder))? {
        let entry = entry.map_err(at("reading the folder", folder))?;
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.starts_with(start) && name.ends_with(end))
        {
            found.push(entry.path());
        }
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) => Err(ImageError::unusable(
            format!("looking for {start}*{end} in the linux package"),
            format!("{} files of that name", found.len()),
        )),
    }
}

fn package_of(deb: &Path, work: &Work<'_>) -> Result<Package, ImageError> {
    let fields = Tool::new("dpkg-deb", "dpkg")
        .args(["--show", "--showformat=${Package}\n${Version}\n"])
        .arg(deb)
        .output(work.cancel)
        .map_err(ImageError::tool("reading the linux package's name"))?;
    match <[String; 2]>::try_from(fields) {
        Ok([name, version]) => Ok(Package { name, version }),
        Err(fields) => Err(ImageError::unusable(
            "reading the linux package's name",
            format!("{fields:?}"),
        )),
    }
}
