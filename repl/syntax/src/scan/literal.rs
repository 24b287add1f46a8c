//! The shapes of words, numbers, operators and the openings of strings.
//!
//! <https://docs.python.org/3/reference/lexical_analysis.html>

/// How a string begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct StringStart {
    quote: u8,
    pub(super) is_triple: bool,
    pub(super) is_raw: bool,
    pub(super) is_interpolated: bool,
    /// Prefix and quotes, in bytes.
    pub(super) length: usize,
}

impl StringStart {
    pub(super) fn quote_length(self) -> usize {
        if self.is_triple { 3 } else { 1 }
    }

    /// Whether the text begins with the quotes that end the string.
    pub(super) fn ends_at(self, text: &[u8]) -> bool {
        text.len() >= self.quote_length()
            && text[..self.quote_length()]
                .iter()
                .all(|&byte| byte == self.quote)
    }
}

/// Reads the prefix and the quotes of a string.
pub(super) fn string_start(text: &str) -> Option<StringStart> {
    let bytes = text.as_bytes();
    let prefix = bytes
        .iter()
        .take(3)
        .take_while(|byte| byte.is_ascii_alphabetic())
        .count();
    let quote = *bytes
        .get(prefix)
        .filter(|byte| matches!(byte, b'\'' | b'"'))?;
    let letters = text[..prefix].to_ascii_lowercase();
    let known = [
        "", "r", "u", "b", "br", "rb", "f", "fr", "rf", "t", "tr", "rt",
    ];
    if !known.contains(&letters.as_str()) {
        return None;
    }
    let is_triple = bytes[prefix..].starts_with(&[quote; 3]);
    Some(StringStart {
        quote,
        is_triple,
        is_raw: letters.contains('r'),
        is_interpolated: letters.contains(['f', 't']),
        length: prefix + if is_triple { 3 } else { 1 },
    })
}

/// The length of the number that the text begins with.
pub(super) fn number(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let digits = |from: usize, of: fn(&u8) -> bool| {
        from + bytes[from..]
            .iter()
            .take_while(|byte| of(byte) || **byte == b'_')
            .count()
    };
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let starts_number = is_digit(0) || (bytes.first() == Some(&b'.') && is_digit(1));
    if !starts_number {
        return None;
    }
    if bytes[0] == b'0' && matches!(bytes.get(1), Some(b'x' | b'X' | b'o' | b'O' | b'b' | b'B')) {
        return Some(digits(2, u8::is_ascii_hexdigit));
    }
    let mut at = digits(0, u8::is_ascii_digit);
    if bytes.get(at) == Some(&b'.') {
        at = digits(at + 1, u8::is_ascii_digit);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        if is_digit(at + 1 + sign) {
            at = digits(at + 1 + sign, u8::is_ascii_digit);
        }
    }
    Some(at + usize::from(matches!(bytes.get(at), Some(b'j' | b'J'))))
}

/// Whether a name can begin with the character. Every letter beyond ASCII may: which ones Python takes is no
/// matter of colours.
pub(super) fn starts_word(character: char) -> bool {
    character == '_'
        || character.is_alphabetic()
        || (!character.is_ascii() && !character.is_whitespace())
}

pub(super) fn continues_word(character: char) -> bool {
    starts_word(character) || character.is_ascii_digit()
}

/// The length of the operator or delimiter that the text begins with, brackets aside.
pub(super) fn operator(text: &str) -> Option<usize> {
    const LONG: [&str; 24] = [
        "...", "**=", "//=", ">>=", "<<=", "!=", "==", "<=", ">=", "->", ":=", "+=", "-=", "*=",
        "/=", "%=", "&=", "|=", "^=", "@=", "**", "//", ">>", "<<",
    ];
    if let Some(operator) = LONG.iter().find(|operator| text.starts_with(**operator)) {
        return Some(operator.len());
    }
    text.starts_with(|c| "+-*/%@&|^~<>=.,:;!".contains(c))
        .then_some(1)
}
