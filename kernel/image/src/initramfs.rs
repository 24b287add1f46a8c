//! The step `initramfs`: the agent, `exec`, the modules and the runner, in a cpio archive that Linux unpacks before all else.
//!
//! It is not compressed: the monitor loads it without the guest's processor, which under emulation would unpack slowly.

use std::io::{self, Write};
use std::path::Path;

use crate::cache::Work;
use crate::error::{ImageError, at};
use crate::guest::{AGENT, EXEC, RUNNER};
use crate::key::{Key, KeyBuilder};
use crate::limits::MODULE_BYTES;
use crate::linux::read_limited;
use crate::root::Format;
use crate::tree;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// The folders that are always there: mount points, and those of the files below.
const FOLDERS: [&str; 6] = ["dev", "modules", "newroot", "proc", "runner", "sys"];

/// The programs, by their names at the top. Linux starts the first.
static PROGRAMS: [(&str, &[u8]); 2] = [("init", AGENT), ("exec", EXEC)];

/// The key of the archive.
pub(crate) fn key(linux: Key, format: Format) -> Key {
    RUNNER
        .iter()
        .fold(
            KeyBuilder::new("initramfs", 1)
                .key("linux", linux)
                .text("root", format.name())
                .bytes("agent", AGENT)
                .bytes("exec", EXEC),
            |key, (path, content)| key.text("path", path).bytes("content", content),
        )
        .finish()
}

/// Makes `initramfs.cpio`; `modules` is the folder that the step `linux` made.
pub(crate) fn make(modules: &Path, format: Format, work: &mut Work<'_>) -> Result<(), ImageError> {
    let path = work.staging.join("initramfs.cpio");
    let mut files = Vec::new();
    let not_needed = format!("-{}.ko", format.other_module());
    for entry in tree::walk(modules)? {
        let name = entry.relative.display().to_string();
        if !name.ends_with(&not_needed) {
            files.push((
                format!("modules/{name}"),
                read_limited(&entry.path, MODULE_BYTES)?,
            ));
        }
    }
    let file = std::fs::File::create(&path).map_err(at("writing", &path))?;
    write(file, &PROGRAMS, &files, RUNNER).map_err(at("writing", &path))
}

/// Entries are in name order, with numbers in place of times: the same content is the same archive.
fn write(
    output: impl Write,
    programs: &[(&str, &[u8])],
    modules: &[(String, Vec<u8>)],
    runner: &[(&str, &[u8])],
) -> io::Result<()> {
    let mut archive = Archive {
        output: io::BufWriter::new(output),
        inode: 0,
    };
    for folder in FOLDERS {
        archive.entry(folder, FOLDER, &[])?;
    }
    // Linux opens this as the first process's standard streams before anything is mounted.
    archive.console()?;
    for (name, content) in programs {
        archive.entry(name, PROGRAM, content)?;
    }
    for (path, content) in modules {
        archive.entry(path, FILE, content)?;
    }
    let mut folders: Vec<&Path> = runner
        .iter()
        .flat_map(|(path, _)| Path::new(path).ancestors().skip(1))
        .filter(|folder| !folder.as_os_str().is_empty())
        .collect();
    folders.sort();
    folders.dedup();
    for folder in folders {
        archive.entry(&format!("runner/{}", folder.display()), FOLDER, &[])?;
    }
    for (path, content) in runner {
        archive.entry(&format!("runner/{path}"), FILE, content)?;
    }
    cpio::newc::trailer(archive.output)?.flush()
}

struct Archive<W: Write> {
    output: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut writer = self.builder(name, mode).write(&mut self.output, size);
        writer.write_all(content)?;
        writer.finish().map(|_| ())
    }

    fn console(&mut self) -> io::Result<()> {
        let builder = self
            .builder("dev/console", CHARACTER_DEVICE)
            .rdev_major(5)
            .rdev_minor(1);
        builder.write(&mut self.output, 0).finish().map(|_| ())
    }

    /// Each entry has a number of its own: equal numbers would be hard links.
    fn builder(&mut self, name: &str, mode: u32) -> cpio::newc::Builder {
        self.inode += 1;
        cpio::newc::Builder::new(name)
            .ino(self.inode)
            .mode(mode)
            .nlink(1)
            .mtime(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_archive_reads_back_as_it_was_written_and_is_reproducible() {
        let modules = vec![("modules/00-virtio.ko".to_owned(), b"\x7fELF".to_vec())];
        let runner: [(&str, &[u8]); 2] =
            [("__main__.py", b"main"), ("backends/python.py", b"python")];
        let programs: [(&str, &[u8]); 2] = [("init", b"agent"), ("exec", b"grpc")];
        let make = || {
            let mut bytes = Vec::new();
            write(&mut bytes, &programs, &modules, &runner).unwrap();
            bytes
        };
        let archive = make();
        assert_eq!(archive, make());
        let mut rest: &[u8] = &archive;
        let mut seen = Vec::new();
        loop {
            let mut reader = cpio::newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut content = String::new();
            reader.read_to_string(&mut content).unwrap();
            let entry = reader.entry();
            assert_eq!((entry.mtime(), entry.uid(), entry.gid()), (0, 0, 0));
            seen.push(format!("{:o} {} {content}", entry.mode(), entry.name()));
            if entry.name() == "dev/console" {
                assert_eq!((entry.rdev_major(), entry.rdev_minor()), (5, 1));
            }
            rest = reader.finish().unwrap();
        }
        assert_eq!(
            seen,
            [
                "40755 dev ",
                "40755 modules ",
                "40755 newroot ",
                "40755 proc ",
                "40755 runner ",
                "40755 sys ",
                "20600 dev/console ",
                "100755 init agent",
                "100755 exec grpc",
                "100644 modules/00-virtio.ko \u{7f}ELF",
                "40755 runner/backends ",
                "100644 runner/__main__.py main",
                "100644 runner/backends/python.py python",
            ]
        );
    }

    #[test]
    fn the_key_follows_linux_and_the_root_format() {
        let linux = |text| KeyBuilder::new("linux", 1).text("t", text).finish();
        assert_eq!(
            key(linux("a"), Format::Erofs),
            key(linux("a"), Format::Erofs)
        );
        assert_ne!(
            key(linux("a"), Format::Erofs),
            key(linux("b"), Format::Erofs)
        );
        assert_ne!(
            key(linux("a"), Format::Erofs),
            key(linux("a"), Format::Squashfs)
        );
    }
}
