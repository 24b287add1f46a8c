//! A disk without room: what was there stays, what was begun goes, and the message names the place.

use std::ffi::CStr;
use std::time::Instant;

use rustix::fs::{StatVfs, statvfs};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::disk::Copy;
use crate::ground::{DEADLINE, TEMPLATE, count, folder, skip};
use crate::process::{Ended, Run};

/// Room for a template and for the making of another.
const ENOUGH: &CStr = c"size=1g,mode=700";
/// Linux does not come up in so little.
const TOO_LITTLE_BYTES: u64 = 8 << 20;

/// After so many files there is no room for one more; what is said then.
const STEPS: [(u64, [&str; 2]); 4] = [
    (0, ["cannot make the folder", "/store/staging/"]),
    (1, ["cannot create", "/memory: "]),
    (2, ["cannot create", "/snapshot: "]),
    (3, ["cannot lock", "/store/lock: "]),
];

#[test]
fn a_full_disk_stops_preparing_at_any_step() {
    let Some(home) = SmallHome::mounted() else {
        return;
    };
    home.still_answers();
    for (files, words) in &STEPS[..count(3, STEPS.len())] {
        let facts = home.disk.facts();
        let limit = facts.f_files - facts.f_ffree + files;
        home.disk.limit(&format!("nr_inodes={limit}"));
        let facts = home.disk.facts();
        let ended = home.prepare();
        ended.fails(125, words);
        ended.fails(125, &["No space left on device", "hint: is the disk full?"]);
        home.is_as_it_was(&facts);
        home.disk.limit("nr_inodes=1000");
    }
}

#[test]
fn a_disk_that_fills_while_linux_comes_up() {
    let Some(home) = SmallHome::mounted() else {
        return;
    };
    home.still_answers();
    let facts = home.disk.facts();
    let used_bytes = (facts.f_blocks - facts.f_bfree) * facts.f_frsize;
    home.disk
        .limit(&format!("size={}", used_bytes + TOO_LITTLE_BYTES));
    let facts = home.disk.facts();
    home.prepare().fails(125, &["boot:", "hint:"]);
    home.is_as_it_was(&facts);
}

/// The cell that has no room for its checkpoint has not happened, whether its beginning could be written down or not.
#[test]
fn a_cell_without_room_for_its_checkpoint_costs_itself() {
    let Some(home) = SmallHome::mounted() else {
        return;
    };
    let cell = |code| home.run(["--template", TEMPLATE, "-s", "t", "-c", code]);
    cell("x = 1").says("");
    let mut kept = 1;
    // The last one changes more than is held in memory, and has no room for the rest of it.
    let large = "big = bytearray(b'0123456789abcdef') * (5 << 20); big[77] = 1; x += 1";
    let small = "x += 1";
    let all = [
        (0, small),
        (30 << 10, small),
        (400 << 10, small),
        (1 << 20, small),
        (90 << 20, large),
    ];
    for (room, code) in all {
        let facts = home.disk.facts();
        let used_bytes = (facts.f_blocks - facts.f_bfree) * facts.f_frsize;
        home.disk.limit(&format!("size={}", used_bytes + room));
        let ended = cell(code);
        if ended.exit() == 0 {
            kept += 1;
        } else {
            assert_eq!(ended.exit(), 125, "{room}: {ended}");
            assert!(
                ended.stderr.contains("hint: is the disk full"),
                "{room}: {ended}"
            );
        }
        home.disk.limit("size=1g");
        cell("print(x)").says(&format!("{kept}\n"));
        let staged = home.copy.store().join("staging").read_dir().unwrap();
        assert_eq!(staged.count(), 0, "{room}");
    }
    assert!(kept < 5, "nothing has failed");
    cell("print('big' in globals())").says("False\n");
}

#[test]
fn a_file_taken_out_to_a_full_disk_is_named() {
    let Some(disk) = SmallDisk::mounted() else {
        return;
    };
    disk.limit("size=64k");
    let target = disk.place.path().join("big");
    let code = "print(open('/tmp/big', 'w').write('x' * 1_000_000))";
    let ended = Run::new([
        "--out",
        &format!("/tmp/big:{}", target.display()),
        "-c",
        code,
    ])
    .finish();
    ended.fails(
        125,
        &["could not write", target.to_str().unwrap(), "No space left"],
    );
    assert_eq!(ended.text(), "1000000\n", "{ended}");
    assert_eq!(disk.place.path().read_dir().unwrap().count(), 0);
}

/// A file system in memory, unmounted on drop.
struct SmallDisk {
    place: tempfile::TempDir,
}

impl SmallDisk {
    fn mounted() -> Option<Self> {
        let place = folder();
        let mounted = mount("tmpfs", place.path(), "tmpfs", MountFlags::empty(), ENOUGH);
        if let Err(error) = mounted {
            skip(&format!("a full disk: mounting a tmpfs: {error}"));
            return None;
        }
        Some(Self { place })
    }

    fn limit(&self, options: &str) {
        mount_remount(self.place.path(), MountFlags::empty(), options).unwrap();
    }

    fn facts(&self) -> StatVfs {
        statvfs(self.place.path()).unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.place.path(), UnmountFlags::DETACH).ok();
    }
}

/// A home with a template on such a disk.
struct SmallHome {
    // Goes first: it lies on the disk.
    copy: Copy,
    run: tempfile::TempDir,
    disk: SmallDisk,
}

impl SmallHome {
    fn mounted() -> Option<Self> {
        let disk = SmallDisk::mounted()?;
        Some(Self {
            copy: Copy::within(tempfile::tempdir_in(disk.place.path()).unwrap()),
            run: folder(),
            disk,
        })
    }

    fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Ended {
        Run::bare(args)
            .env("VMREPL_HOME", self.copy.home())
            .env("VMREPL_RUN_DIR", self.run.path())
            .finish()
    }

    fn prepare(&self) -> Ended {
        self.run(["prepare", TEMPLATE, "--force"])
    }

    #[track_caller]
    fn still_answers(&self) {
        self.run(["--template", TEMPLATE, "-c", "'here'"])
            .says("'here'\n");
    }

    /// Nothing is staged, the template answers, and the room is free again. Linux may take a moment to
    /// give back the memory of a machine that has ended.
    #[track_caller]
    fn is_as_it_was(&self, before: &StatVfs) {
        let began = Instant::now();
        loop {
            let now = self.disk.facts();
            let lost_blocks = before.f_bfree.saturating_sub(now.f_bfree);
            let lost_files = before.f_ffree.saturating_sub(now.f_ffree);
            if (lost_blocks, lost_files) == (0, 0) {
                break;
            }
            assert!(
                began.elapsed() < DEADLINE,
                "{lost_blocks} blocks and {lost_files} files did not come back"
            );
            std::thread::yield_now();
        }
        let staged = self.copy.store().join("staging").read_dir().unwrap();
        assert_eq!(staged.count(), 0);
        self.still_answers();
    }
}
