//! The Debian releases that an image can be made of, and what about them matters to the Python packages.

/// One Debian release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suite {
    /// Its code name.
    pub(crate) name: &'static str,
    /// The Python 3 minor version that it ships.
    pub(crate) python_minor: u32,
    /// The minor version of its C library: wheels built for up to this one run.
    pub(crate) glibc_minor: u32,
}

const KNOWN: [Suite; 1] = [Suite {
    name: "bookworm",
    python_minor: 11,
    glibc_minor: 36,
}];

impl Suite {
    /// What a recipe gets that names none.
    pub(crate) const DEFAULT: Self = KNOWN[0];

    pub(crate) fn named(name: &str) -> Option<Self> {
        KNOWN.into_iter().find(|suite| suite.name == name)
    }

    pub(crate) fn names() -> String {
        KNOWN.map(|suite| suite.name).join(", ")
    }

    /// The wheel platforms that run on this release, best first, PEP 600 names and the older ones that they replaced.
    pub(crate) fn platforms(self) -> Vec<String> {
        let mut platforms: Vec<String> = (5..=self.glibc_minor)
            .rev()
            .map(|minor| format!("manylinux_2_{minor}_x86_64"))
            .collect();
        platforms.extend(
            [
                "manylinux2014_x86_64",
                "manylinux2010_x86_64",
                "manylinux1_x86_64",
                "linux_x86_64",
            ]
            .map(String::from),
        );
        platforms
    }

    /// Where Debian's Python looks for packages that are not Debian's own, also with `-I`.
    pub(crate) fn packages_dir(self) -> String {
        format!("usr/local/lib/python3.{}/dist-packages", self.python_minor)
    }
}
