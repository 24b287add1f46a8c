//! Pictures: inside the terminal where it can, in a file where it cannot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How a terminal shows pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inline {
    /// The protocol of kitty, which Ghostty and `WezTerm` speak too.
    Kitty,
    /// The protocol of iTerm2.
    ITerm,
}

impl Inline {
    /// What a terminal can, from its environment variables. A multiplexer between it and us eats
    /// pictures.
    #[must_use]
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let term = variable("TERM").unwrap_or_default();
        if variable("TMUX").is_some() || term.starts_with("screen") || term.starts_with("tmux") {
            return None;
        }
        let program = variable("TERM_PROGRAM").unwrap_or_default();
        match (term.as_str(), program.as_str()) {
            ("xterm-kitty" | "xterm-ghostty", _) | (_, "ghostty" | "WezTerm") => Some(Self::Kitty),
            (_, "iTerm.app") => Some(Self::ITerm),
            _ if variable("KITTY_WINDOW_ID").is_some() => Some(Self::Kitty),
            _ => None,
        }
    }
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// A larger picture only goes to a file.
const INLINE_BYTES_MAX: usize = 8 << 20;
/// The most that one command of kitty's protocol may carry.
const KITTY_CHUNK_BYTES: usize = 4096;

/// A picture of a cell: bytes that were checked to be one.
#[derive(Debug)]
pub(crate) struct Picture {
    bytes: Vec<u8>,
    extension: &'static str,
}

impl Picture {
    /// Takes what the guest calls a PNG.
    pub(crate) fn png(base64: &str) -> Option<Self> {
        let compact: String = base64.split_ascii_whitespace().collect();
        let bytes = STANDARD.decode(compact).ok()?;
        bytes.starts_with(PNG).then_some(Self {
            bytes,
            extension: "png",
        })
    }

    /// Takes SVG, which is only ever put into a file.
    pub(crate) fn svg(text: &str) -> Self {
        Self {
            bytes: text.as_bytes().to_vec(),
            extension: "svg",
        }
    }

    /// Width and height in pixels, from the header of a PNG.
    pub(crate) fn size(&self) -> Option<(u32, u32)> {
        if self.extension != "png" {
            return None;
        }
        let number = |at: usize| {
            let bytes = self.bytes.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        Some((number(16)?, number(20)?))
    }

    /// The bytes that make a terminal show it. Made from the decoded picture, so nothing but base64 of
    /// it is inside.
    pub(crate) fn inline(&self, how: Inline) -> Option<String> {
        if self.extension != "png" || self.bytes.len() > INLINE_BYTES_MAX {
            return None;
        }
        let data = STANDARD.encode(&self.bytes);
        Some(match how {
            Inline::ITerm => format!(
                "\x1b]1337;File=inline=1;size={};preserveAspectRatio=1:{data}\x07\n",
                self.bytes.len()
            ),
            Inline::Kitty => kitty(&data),
        })
    }

    /// Writes it to `folder` under a name that nothing has yet.
    pub(crate) fn save(&self, folder: &Path, cell: u64) -> io::Result<PathBuf> {
        fs::create_dir_all(folder)?;
        for number in 1_u32.. {
            let name = format!(
                "{}-cell{cell}-{number}.{}",
                std::process::id(),
                self.extension
            );
            let path = folder.join(name);
            match fs::File::create_new(&path) {
                Ok(mut file) => {
                    io::Write::write_all(&mut file, &self.bytes)?;
                    return Ok(path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

fn kitty(data: &str) -> String {
    let mut text = String::with_capacity(data.len() + data.len() / 64);
    let mut rest = data;
    let mut first = true;
    while !rest.is_empty() {
        let (chunk, left) = rest.split_at(rest.len().min(KITTY_CHUNK_BYTES));
        let more = u8::from(!left.is_empty());
        let keys = if first { "f=100,a=T,q=2," } else { "q=2," };
        text.push_str(&format!("\x1b_G{keys}m={more};{chunk}\x1b\\"));
        (rest, first) = (left, false);
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(pairs: &[(&str, &str)]) -> Option<Inline> {
        Inline::detect(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn terminals_are_known_by_their_environment() {
        assert_eq!(detect(&[("TERM", "xterm-kitty")]), Some(Inline::Kitty));
        assert_eq!(
            detect(&[("TERM", "xterm-256color"), ("TERM_PROGRAM", "iTerm.app")]),
            Some(Inline::ITerm)
        );
        assert_eq!(detect(&[("TERM", "xterm-256color")]), None);
        assert_eq!(
            detect(&[("TERM", "tmux-256color"), ("KITTY_WINDOW_ID", "1")]),
            None
        );
        assert_eq!(detect(&[]), None);
    }

    fn picture() -> Picture {
        let mut bytes = PNG.to_vec();
        bytes.extend_from_slice(b"\0\0\0\x0dIHDR\0\0\x02\x80\0\0\x01\xe0");
        bytes.extend_from_slice(&[7; 9000]);
        Picture::png(&STANDARD.encode(bytes)).unwrap()
    }

    #[test]
    fn a_png_is_told_by_its_bytes() {
        assert_eq!(picture().size(), Some((640, 480)));
        assert!(Picture::png("\x1b]0;evil\x07").is_none());
        assert!(Picture::png(&STANDARD.encode(b"GIF89a")).is_none());
    }

    #[test]
    fn kitty_gets_chunks_and_the_last_one_says_so() {
        let text = picture().inline(Inline::Kitty).unwrap();
        let commands: Vec<&str> = text.trim_end().split_inclusive("\x1b\\").collect();
        assert!(commands.len() > 2, "{}", commands.len());
        assert!(commands[0].starts_with("\x1b_Gf=100,a=T,q=2,m=1;"));
        assert!(commands.last().unwrap().starts_with("\x1b_Gq=2,m=0;"));
        assert!(commands.iter().all(|command| command.len() < 4096 + 32));
    }

    #[test]
    fn saved_pictures_do_not_overwrite_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let first = picture().save(folder.path(), 3).unwrap();
        let second = picture().save(folder.path(), 3).unwrap();
        assert_ne!(first, second);
        assert_eq!(fs::read(first).unwrap(), fs::read(second).unwrap());
    }
}
