//! Keeps a guest's bytes from steering the terminal: colours and cursor moves pass, commands to the
//! terminal itself (clipboard, title, queries, device control) do not.

/// Where in an escape sequence the last byte stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Text,
    /// Behind 0xC2, which begins the controls U+0080 to U+009F: some terminals obey them as sequences.
    Lead,
    Escape,
    Control,
    /// Inside a string command (OSC, DCS, APC, PM, SOS), which is dropped to its end.
    String,
    StringEscape,
}

/// A filter for output on its way to a terminal. Sequences may be cut anywhere.
#[derive(Debug, Default)]
pub struct Sanitiser {
    state: State,
    held: Vec<u8>,
}

/// Final bytes of control sequences that pass: cursor moves, erasing, colours.
const FINALS: &[u8] = b"ABCDEFGHJKSTfm";
const HELD_MAX: usize = 64;

impl Sanitiser {
    /// What of `bytes` may go to the terminal.
    pub fn filter(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.byte(byte, &mut out);
        }
        out
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = match self.state {
            State::Lead if (0x80..=0x9f).contains(&byte) => State::Text,
            State::Lead => {
                out.push(0xc2);
                self.state = State::Text;
                return self.byte(byte, out);
            }
            State::Text => match byte {
                0x1b => State::Escape,
                0xc2 => State::Lead,
                b'\n' | b'\r' | b'\t' | 0x08 | 0x07 | 0x20..=0x7e | 0x80.. => {
                    out.push(byte);
                    State::Text
                }
                _ => State::Text,
            },
            State::Escape => match byte {
                b'[' => {
                    self.held = vec![0x1b, b'['];
                    State::Control
                }
                b']' | b'P' | b'X' | b'^' | b'_' => State::String,
                0x1b => State::Escape,
                _ => State::Text,
            },
            State::Control => {
                self.held.push(byte);
                match byte {
                    0x40..=0x7e => {
                        if FINALS.contains(&byte) {
                            out.append(&mut self.held);
                        }
                        State::Text
                    }
                    0x20..=0x3f if self.held.len() < HELD_MAX => State::Control,
                    _ => State::Text,
                }
            }
            State::String => match byte {
                0x07 => State::Text,
                0x1b => State::StringEscape,
                _ => State::String,
            },
            State::StringEscape => match byte {
                b'\\' => State::Text,
                _ => State::String,
            },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> String {
        String::from_utf8(Sanitiser::default().filter(text.as_bytes())).unwrap()
    }

    #[test]
    fn colours_and_moves_pass_and_commands_do_not() {
        assert_eq!(
            all("a\x1b[31mred\x1b[0m\r\x1b[2K"),
            "a\x1b[31mred\x1b[0m\r\x1b[2K"
        );
        assert_eq!(all("x\x1b]52;c;ZXZpbA==\x07y"), "xy");
        assert_eq!(all("x\x1b]0;title\x1b\\y"), "xy");
        assert_eq!(all("x\x1bPq\x1b\\y\x1b[6nz\x1b[c"), "xyz");
        assert_eq!(all("nul\0bell"), "nulbell");
        assert_eq!(all("grün §"), "grün §");
        assert_eq!(all("x\u{9b}31my\u{9d}0;t"), "x31my0;t");
    }

    #[test]
    fn sequences_may_be_cut_anywhere() {
        let text = "a\x1b[1;31mb\x1b]52;c;x\x07c".as_bytes();
        for cut in 0..text.len() {
            let mut sanitiser = Sanitiser::default();
            let mut out = sanitiser.filter(&text[..cut]);
            out.extend(sanitiser.filter(&text[cut..]));
            assert_eq!(out, b"a\x1b[1;31mbc", "cut at {cut}");
        }
    }
}
