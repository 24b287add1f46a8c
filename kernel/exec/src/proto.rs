//! The messages and services of `proto/`, as the build script has made them.
#![expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "made by a program; the .proto files say what things mean"
)]

/// Programs.
pub(crate) mod exec {
    include!(concat!(env!("OUT_DIR"), "/server/exec.rs"));
}

/// Files, and programs under another name.
pub(crate) mod guest {
    include!(concat!(env!("OUT_DIR"), "/server/guest.rs"));
}
