//! The toolchains of the recipe `polyglot`: how a program of each language is compiled and run.
//!
//! All commands start in the program's own folder, as an ordinary user on a read-only system. What they need beyond it:
//! `/dev/null` and `/dev/urandom`, for mono and rustc `/proc`, and for rustc a `TMPDIR` that it may write to, which may be
//! the folder itself. None needs a home. Memory cannot be bounded by address space: what is written in Go, compilers too,
//! reserves more than 512 MB of it, and node more than 256 MB.

use vmrepl_wire::languages::Language;

/// Stands for the name of the source file in a command.
pub(crate) const SOURCE: &str = "{source}";

/// Stands for the name of the file that the compiler leaves, or for a part of it.
pub(crate) const OUTPUT: &str = "{output}";

/// What every compiler and program gets as its environment.
pub(crate) const ENVIRONMENT: [(&str, &str); 2] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("LANG", "C.UTF-8"),
];

/// A program and its arguments, with [`SOURCE`] and [`OUTPUT`] in them.
pub(crate) type Command = &'static [&'static str];

/// How one language's programs are compiled and run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// The file that takes the source.
    pub(crate) source: &'static str,
    /// What makes [`output`](Self::output) of it, one after the other; nothing for a language that is interpreted.
    pub(crate) compile: &'static [Command],
    /// The file that the last of these leaves, and that is all that a run needs; the source itself if there are none.
    pub(crate) output: &'static str,
    /// What runs the output.
    pub(crate) run: Command,
    /// Added to [`ENVIRONMENT`] for the compiler and the program.
    pub(crate) environment: &'static [(&'static str, &'static str)],
    /// What prints the version.
    pub(crate) version: Command,
}

/// Isolated from the environment and the folder, yet with the packages of `/usr/local/lib/python3.11`.
const PYTHON: Toolchain = Toolchain {
    source: "main.py",
    compile: &[],
    output: "main.py",
    run: &["/usr/bin/python3", "-I", OUTPUT],
    environment: &[],
    version: &["/usr/bin/python3", "--version"],
};

/// One format for modules of both kinds: `import` and `require` work, `await` outside of a function does not. Node starts
/// in this format in two thirds of the time of the other. The map costs nothing before an error is shown, and lets it name
/// the lines of the source.
const fn esbuild(source: &'static str) -> Toolchain {
    Toolchain {
        source,
        compile: &[&[
            "/usr/bin/esbuild",
            "--platform=node",
            "--format=cjs",
            "--target=node18",
            "--charset=utf8",
            "--sourcemap=inline",
            "--sources-content=false",
            "--log-level=warning",
            "--color=false",
            "--outfile={output}",
            SOURCE,
        ]],
        output: "main.cjs",
        run: &["/usr/bin/node", "--enable-source-maps", OUTPUT],
        environment: &[],
        version: &["/usr/bin/node", "--version"],
    }
}

/// The compiler's own program: `/usr/bin/mcs` is a shell script around it.
const CSHARP: Toolchain = Toolchain {
    source: "main.cs",
    compile: &[&[
        "/usr/bin/mono",
        "/usr/lib/mono/4.5/mcs.exe",
        "-nologo",
        "-r:System.Numerics.dll",
        "-r:Microsoft.CSharp.dll",
        "-out:{output}",
        SOURCE,
    ]],
    output: "main.exe",
    run: &["/usr/bin/mono", OUTPUT],
    environment: &[],
    version: &["/usr/bin/mono", "/usr/lib/mono/4.5/mcs.exe", "--version"],
};

/// Reading headers is nearly all of a small program's compilation. So a little optimisation is nearly free, and the headers
/// that the image has ready, made with the options up to `-static`, save two thirds when one of them is what a source
/// includes first. Static: under emulation the loader takes longer to join a program with the C++ library than most
/// programs run. Gold links in half of the time of the other linker.
const CPP: Toolchain = Toolchain {
    source: "main.cpp",
    compile: &[&[
        "/usr/bin/g++",
        "-std=c++20",
        "-O1",
        "-pipe",
        "-static",
        "-fuse-ld=gold",
        "-I/usr/lib/vmrepl/cpp",
        "-o",
        OUTPUT,
        SOURCE,
    ]],
    output: "main",
    run: &["./{output}"],
    environment: &[],
    version: &["/usr/bin/g++", "--version"],
};

/// Linking the standard library at run time halves the compilation of a small program; one unit of code saves a quarter of
/// that of a larger one.
const RUST: Toolchain = Toolchain {
    source: "main.rs",
    compile: &[&[
        "/usr/bin/rustc",
        "--edition=2021",
        "--crate-name=main",
        "-Copt-level=1",
        "-Ccodegen-units=1",
        "-Cprefer-dynamic",
        "-Cembed-bitcode=no",
        "-o",
        OUTPUT,
        SOURCE,
    ]],
    output: "main",
    run: &["./{output}"],
    environment: &[],
    version: &["/usr/bin/rustc", "--version"],
};

/// Compiler and linker themselves, on the compiled library that Go comes with. `go build` would first look through the
/// sources of all that is imported, and compile it when the cache is empty: twice the time, or forty seconds.
const GO: Toolchain = Toolchain {
    source: "main.go",
    compile: &[
        &[
            "/usr/lib/go-1.19/pkg/tool/linux_amd64/compile",
            "-p",
            "main",
            "-complete",
            "-c=1",
            "-pack",
            "-o",
            "{output}.a",
            SOURCE,
        ],
        &[
            "/usr/lib/go-1.19/pkg/tool/linux_amd64/link",
            "-s",
            "-w",
            "-o",
            OUTPUT,
            "{output}.a",
        ],
    ],
    output: "main",
    run: &["./{output}"],
    environment: &[],
    version: &["/usr/bin/go", "version"],
};

const BASH: Toolchain = Toolchain {
    source: "main.sh",
    compile: &[],
    output: "main.sh",
    run: &["/bin/bash", OUTPUT],
    environment: &[],
    version: &["/bin/bash", "--version"],
};

/// The toolchain of a language.
pub(crate) const fn of(language: Language) -> Toolchain {
    match language {
        Language::Python => PYTHON,
        Language::TypeScript => esbuild("main.ts"),
        Language::JavaScript => esbuild("main.js"),
        Language::CSharp => CSHARP,
        Language::Cpp => CPP,
        Language::Rust => RUST,
        Language::Go => GO,
        Language::Bash => BASH,
    }
}

impl Toolchain {
    /// The arguments of one of its commands, with the names of its files in them; `folder` is put before these, and ends with
    /// a stroke if it is not empty.
    pub(crate) fn fill(&self, command: Command, folder: &str) -> Vec<String> {
        let fill = |argument: &&str| {
            let here = format!("./{OUTPUT}");
            let argument = match *argument == here && !folder.is_empty() {
                true => OUTPUT,
                false => argument,
            };
            argument
                .replace(SOURCE, &format!("{folder}{}", self.source))
                .replace(OUTPUT, &format!("{folder}{}", self.output))
        };
        command.iter().map(fill).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = include_str!("../../../image/recipes/polyglot.toml");

    #[test]
    fn each_command_names_its_files_and_an_absolute_program() {
        for language in Language::ALL {
            let chain = of(language);
            assert!(chain.run.iter().any(|part| part.contains(OUTPUT)));
            assert_eq!(chain.compile.is_empty(), chain.source == chain.output);
            for command in chain.compile.iter().chain([&chain.run, &chain.version]) {
                let filled = chain.fill(command, "");
                let own = format!("./{}", chain.output);
                assert!(filled[0].starts_with('/') || filled[0] == own, "{language}");
                assert!(filled.iter().all(|part| !part.contains(['{', '}'])));
            }
            if let (Some(first), Some(last)) = (chain.compile.first(), chain.compile.last()) {
                assert!(first.contains(&SOURCE), "{language}");
                assert!(last.iter().any(|part| part.contains(OUTPUT)), "{language}");
            }
        }
    }

    #[test]
    fn headers_are_made_ready_with_the_options_that_they_are_used_with() {
        let made = RECIPE.lines().find(|line| line.contains("c++-header"));
        let made: Vec<&str> = made.expect("a line").split_whitespace().collect();
        for option in ["-std=c++20", "-O1", "-pipe", "-static"] {
            assert!(made.contains(&option) && CPP.compile[0].contains(&option));
        }
        let used = CPP.compile[0].iter().filter(|part| part.starts_with('-'));
        assert_eq!(
            used.count(),
            7,
            "each other option is a reason to look again"
        );
    }
}
