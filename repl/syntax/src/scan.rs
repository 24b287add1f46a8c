//! Cuts any text into tokens, in one pass and without a failure.
//!
//! The parser has a lexer of its own, but gives its tokens only together with a tree. Colours must not wait for a
//! tree, and the limits must be known before one is built. F-strings are cut as PEP 701 has them.

mod literal;

use std::ops::Range;

use literal::StringStart;

/// What a token is. The text between two tokens is white space or a backslash at the end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name or a keyword.
    Word,
    Number,
    /// A string, or a piece of an f-string that is not code. A string without its end runs to the end of its
    /// line, or of the text.
    String,
    /// The prefix and quotes that open an f-string.
    InterpolatedStart,
    Comment,
    /// The end of a statement's line.
    Newline,
    Operator,
    Open,
    Close,
    /// `:=`, `,`, ... are operators; this is for what Python has no use for.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// In bytes, on character boundaries.
    pub(crate) range: Range<usize>,
}

/// The tokens of a text, and what it leaves open.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) tokens: Vec<Token>,
    /// Offsets of brackets without their partners, in order.
    pub(crate) open_brackets: Vec<usize>,
    /// The first closing bracket that closes nothing.
    pub(crate) unmatched: Option<usize>,
    /// A string in triple quotes has no end.
    pub(crate) open_string: bool,
    /// F-strings and t-strings with their quotes; those without an end reach to where they had to have it.
    pub(crate) interpolated: Vec<Range<usize>>,
}

/// An f-string or t-string whose end has not come.
struct Interpolated {
    offset: usize,
    start: StringStart,
    /// Brackets that were open around it.
    level: usize,
    /// In the part of a replacement field after its colon, by the level of the field's brace.
    specs: Vec<usize>,
}

struct Scanner<'s> {
    text: &'s str,
    at: usize,
    scan: Scan,
    interpolated: Vec<Interpolated>,
    /// Something of the current statement has been seen.
    in_statement: bool,
}

/// Cuts `text` into tokens.
pub(crate) fn scan(text: &str) -> Scan {
    let mut scanner = Scanner {
        text,
        at: 0,
        scan: Scan::default(),
        interpolated: Vec::new(),
        in_statement: false,
    };
    while scanner.at < text.len() {
        if scanner.is_in_literal_part() {
            scanner.literal_part();
        } else {
            scanner.code();
        }
    }
    let Scanner {
        mut scan,
        interpolated,
        ..
    } = scanner;
    for string in interpolated {
        scan.open_string |= string.start.is_triple;
        scan.interpolated.push(string.offset..text.len());
    }
    scan
}

impl Scanner<'_> {
    fn level(&self) -> usize {
        self.scan.open_brackets.len()
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn push(&mut self, kind: Kind, end: usize) {
        debug_assert!(end > self.at, "a token has a length");
        self.in_statement = match kind {
            Kind::Newline => false,
            Kind::Comment => self.in_statement,
            _ => true,
        };
        self.scan.tokens.push(Token {
            kind,
            range: self.at..end,
        });
        self.at = end;
    }

    /// Whether the next character is text of an f-string rather than code.
    fn is_in_literal_part(&self) -> bool {
        let level = self.level();
        self.interpolated
            .last()
            .is_some_and(|string| string.level == level || string.specs.last() == Some(&level))
    }

    /// Takes text of an f-string up to a brace, its end, or the end of a line that it cannot cross.
    fn literal_part(&mut self) {
        let level = self.level();
        let Some(string) = self.interpolated.last() else {
            return;
        };
        let start = string.start;
        let in_spec = string.level != level;
        let bytes = self.text.as_bytes();
        let mut at = self.at;
        while at < bytes.len() {
            let byte = bytes[at];
            let doubled = !in_spec && bytes.get(at + 1) == Some(&byte);
            match byte {
                b'\\' if !start.is_raw && self.text[at..].starts_with("\\N{") && !in_spec => {
                    // A named character: its braces are no replacement field.
                    let name = &self.text[at + 3..];
                    let length =
                        name.find(|c: char| !(c.is_ascii_alphanumeric() || " -".contains(c)));
                    at += 3 + length.unwrap_or(name.len());
                    at += usize::from(bytes.get(at) == Some(&b'}'));
                }
                b'\\' if !matches!(bytes.get(at + 1), Some(b'{' | b'}')) => {
                    at = self.after_escape(at);
                }
                b'{' | b'}' if doubled => at += 2,
                b'{' | b'}' => break,
                b'\n' | b'\r' if !start.is_triple => break,
                _ if start.ends_at(&bytes[at..]) => break,
                _ => at += 1,
            }
        }
        if at > self.at {
            self.push(Kind::String, at);
        }
        self.after_literal_part(start);
    }

    fn after_literal_part(&mut self, start: StringStart) {
        let bytes = self.text.as_bytes();
        match bytes.get(self.at) {
            None => {}
            Some(b'{') => self.open(),
            Some(b'}') => self.close(b'}'),
            Some(b'\n' | b'\r') if !start.is_triple => self.leave(),
            Some(_) => {
                self.push(Kind::String, self.at + start.quote_length());
                self.leave();
            }
        }
    }

    /// Where the character after a backslash ends.
    fn after_escape(&self, at: usize) -> usize {
        let mut rest = self.text[at + 1..].chars();
        match rest.next() {
            Some('\r') if rest.next() == Some('\n') => at + 3,
            Some(escaped) => at + 1 + escaped.len_utf8(),
            None => at + 1,
        }
    }

    /// Ends the innermost f-string here, and forgets the brackets that are open inside it.
    fn leave(&mut self) {
        if let Some(string) = self.interpolated.pop() {
            self.scan.open_brackets.truncate(string.level);
            self.scan.interpolated.push(string.offset..self.at);
        }
    }

    fn open(&mut self) {
        self.scan.open_brackets.push(self.at);
        self.push(Kind::Open, self.at + 1);
    }

    fn close(&mut self, closer: u8) {
        let floor = self.interpolated.last().map_or(0, |string| string.level);
        let opener = match closer {
            b')' => b'(',
            b']' => b'[',
            _ => b'{',
        };
        let open = self
            .scan
            .open_brackets
            .last()
            .map(|&at| self.text.as_bytes()[at]);
        if self.level() > floor && open == Some(opener) {
            if let Some(string) = self.interpolated.last_mut()
                && string.specs.last() == Some(&self.scan.open_brackets.len())
            {
                string.specs.pop();
            }
            self.scan.open_brackets.pop();
        } else {
            self.scan.unmatched.get_or_insert(self.at);
        }
        self.push(Kind::Close, self.at + 1);
    }

    /// Takes one token of code, or the white space before it.
    fn code(&mut self) {
        let Some(first) = self.rest().chars().next() else {
            return;
        };
        match first {
            '\n' | '\r' => self.line_end(first),
            '\\' => {
                let end = self.at + 1;
                if matches!(self.text.as_bytes().get(end), None | Some(b'\n' | b'\r')) {
                    self.at = self.after_escape(self.at);
                } else {
                    self.push(Kind::Unknown, end);
                }
            }
            '#' => {
                let length = self.rest().find(['\n', '\r']).unwrap_or(self.rest().len());
                self.push(Kind::Comment, self.at + length);
            }
            '(' | '[' | '{' => self.open(),
            ')' => self.close(b')'),
            ']' => self.close(b']'),
            '}' => self.close(b'}'),
            _ => self.word_or_sign(first),
        }
    }

    fn line_end(&mut self, first: char) {
        let length = if self.rest().starts_with("\r\n") {
            2
        } else {
            first.len_utf8()
        };
        if self.in_statement && self.level() == 0 {
            self.push(Kind::Newline, self.at + length);
        } else {
            self.at += length;
        }
    }

    fn word_or_sign(&mut self, first: char) {
        if let Some(start) = literal::string_start(self.rest()) {
            return self.string(start);
        }
        if let Some(length) = literal::number(self.rest()) {
            return self.push(Kind::Number, self.at + length);
        }
        if literal::starts_word(first) {
            let length = self
                .rest()
                .find(|c| !literal::continues_word(c))
                .unwrap_or(self.rest().len());
            return self.push(Kind::Word, self.at + length);
        }
        if first.is_whitespace() || first.is_ascii_control() {
            self.at += first.len_utf8();
            return;
        }
        self.sign(first);
    }

    fn sign(&mut self, first: char) {
        let level = self.level();
        if let Some(string) = self.interpolated.last_mut()
            && string.level + 1 + string.specs.len() == level
            && first == ':'
        {
            // Directly in a replacement field: its format follows, even after `:=`.
            string.specs.push(level);
            return self.push(Kind::Operator, self.at + 1);
        }
        match literal::operator(self.rest()) {
            Some(length) => self.push(Kind::Operator, self.at + length),
            None => self.push(Kind::Unknown, self.at + first.len_utf8()),
        }
    }

    fn string(&mut self, start: StringStart) {
        if start.is_interpolated {
            let (offset, level) = (self.at, self.level());
            self.push(Kind::InterpolatedStart, self.at + start.length);
            self.interpolated.push(Interpolated {
                offset,
                start,
                level,
                specs: Vec::new(),
            });
            return;
        }
        let bytes = self.text.as_bytes();
        let mut at = self.at + start.length;
        while at < bytes.len() {
            match bytes[at] {
                b'\\' => at = self.after_escape(at),
                b'\n' | b'\r' if !start.is_triple => return self.push(Kind::String, at),
                _ if start.ends_at(&bytes[at..]) => {
                    return self.push(Kind::String, at + start.quote_length());
                }
                _ => at += 1,
            }
        }
        self.scan.open_string |= start.is_triple;
        self.push(Kind::String, at);
    }
}

#[cfg(test)]
mod tests;
