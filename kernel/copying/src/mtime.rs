//! When a file was changed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};

const NS_PER_S: i64 = 1_000_000_000;

/// When a file was changed, in nanoseconds since 1970. What lies outside the years 1678 to 2262 becomes the nearest that
/// does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtime(pub i64);

impl Mtime {
    pub(crate) fn from_seconds(seconds: u64) -> Self {
        Self(
            i64::try_from(seconds)
                .unwrap_or(i64::MAX)
                .saturating_mul(NS_PER_S),
        )
    }

    /// Whole seconds, as an archive's header has room for them.
    pub(crate) fn seconds(self) -> u64 {
        u64::try_from(self.0.div_euclid(NS_PER_S)).unwrap_or(0)
    }

    /// As a record of pax has it: decimal seconds.
    pub(crate) fn to_decimal(self) -> String {
        let sign = if self.0 < 0 { "-" } else { "" };
        let ns = self.0.unsigned_abs();
        let per_s = NS_PER_S.unsigned_abs();
        format!("{sign}{}.{:09}", ns / per_s, ns % per_s)
    }

    /// Reads decimal seconds; digits beyond nanoseconds are cut off.
    pub(crate) fn from_decimal(text: &str) -> Option<Self> {
        let (is_before, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        if !whole
            .bytes()
            .chain(part.bytes())
            .all(|byte| byte.is_ascii_digit())
        {
            return None;
        }
        let seconds: i64 = whole.parse().ok()?;
        let part: String = part.chars().chain("000000000".chars()).take(9).collect();
        let ns = seconds
            .saturating_mul(NS_PER_S)
            .saturating_add(part.parse().ok()?);
        Some(Self(if is_before { -ns } else { ns }))
    }

    /// For the system calls that set times; the time of the last access stays as it is.
    pub(crate) fn timestamps(self) -> Timestamps {
        Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: self.0.div_euclid(NS_PER_S),
                tv_nsec: self.0.rem_euclid(NS_PER_S),
            },
        }
    }
}

impl From<&Metadata> for Mtime {
    fn from(metadata: &Metadata) -> Self {
        Self(
            metadata
                .mtime()
                .saturating_mul(NS_PER_S)
                .saturating_add(metadata.mtime_nsec()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for ns in [
            0,
            1,
            -1,
            1_700_000_000_123_456_789,
            -5_000_000_001,
            i64::MAX,
        ] {
            assert_eq!(
                Mtime::from_decimal(&Mtime(ns).to_decimal()),
                Some(Mtime(ns))
            );
        }
        assert_eq!(Mtime::from_decimal("12"), Some(Mtime(12 * NS_PER_S)));
        assert_eq!(Mtime::from_decimal("1.5"), Some(Mtime(1_500_000_000)));
        assert_eq!(
            Mtime::from_decimal("1.0000000019"),
            Some(Mtime(NS_PER_S + 1))
        );
        for text in ["", ".", "x", "1e3", "--1", "1.+5", "99999999999999999999"] {
            assert_eq!(Mtime::from_decimal(text), None, "{text:?}");
        }
        assert_eq!(Mtime::from_seconds(u64::MAX), Mtime(i64::MAX));
        assert_eq!(Mtime(-1).seconds(), 0);
    }
}
