//! What a streamed cell says while it runs.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Bundle};
use super::table::Table;

/// One line of a streamed cell; `Done` is the last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// Bytes of standard output.
    Stdout(Output),
    /// Bytes of standard error.
    Stderr(Output),
    /// Something to show.
    Display(ResultEvent),
    /// The last expression's value.
    Result(ResultEvent),
    /// A table that the cell bound.
    Table(TableEvent),
    /// The cell raised.
    Error(Raised),
    /// The cell waits for input.
    InputRequest(InputRequest),
    /// The cell has ended.
    Done(Box<Answer>),
    /// An event of a later runner, to be passed over.
    #[serde(other)]
    Unknown,
}

/// Bytes that a cell wrote: `text` on the wire, or `base64` when they are not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "OutputLine", into = "OutputLine")]
pub struct Output {
    /// The request's id.
    pub id: Option<String>,
    bytes: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Bytes {
    Text(String),
    Raw(Vec<u8>),
}

impl Output {
    /// Wraps bytes as they were written.
    #[must_use]
    pub fn new(id: Option<String>, bytes: Vec<u8>) -> Self {
        let bytes = match String::from_utf8(bytes) {
            Ok(text) => Bytes::Text(text),
            Err(error) => Bytes::Raw(error.into_bytes()),
        };
        Self { id, bytes }
    }

    /// The bytes as they were written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Text(text) => text.as_bytes(),
            Bytes::Raw(raw) => raw,
        }
    }

    /// The bytes as text; what is not UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn to_text(&self) -> Cow<'_, str> {
        match &self.bytes {
            Bytes::Text(text) => Cow::Borrowed(text),
            Bytes::Raw(raw) => String::from_utf8_lossy(raw),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct OutputLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl TryFrom<OutputLine> for Output {
    type Error = String;

    fn try_from(line: OutputLine) -> Result<Self, String> {
        let bytes = match (line.text, line.base64) {
            (Some(text), None) => Bytes::Text(text),
            (None, Some(base64)) => Bytes::Raw(
                STANDARD
                    .decode(base64)
                    .map_err(|error| format!("base64: {error}"))?,
            ),
            _ => return Err("output holds one of `text` and `base64`".to_owned()),
        };
        Ok(Self { id: line.id, bytes })
    }
}

impl From<Output> for OutputLine {
    fn from(output: Output) -> Self {
        let (text, base64) = match output.bytes {
            Bytes::Text(text) => (Some(text), None),
            Bytes::Raw(raw) => (None, Some(STANDARD.encode(raw))),
        };
        Self {
            id: output.id,
            text,
            base64,
        }
    }
}

/// A value or a display.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultEvent {
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its forms.
    #[serde(flatten)]
    pub bundle: Bundle,
}

/// A table that the cell bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEvent {
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The table.
    pub table: Table,
}

/// The cell raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The exception's type.
    pub name: String,
    /// The exception's text.
    pub value: String,
    /// The whole traceback.
    pub traceback: String,
}

/// The cell waits for a line of input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRequest {
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What to show before the input.
    pub prompt: String,
    /// Whether to hide what is typed.
    #[serde(default)]
    pub password: bool,
}

/// Which of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Appends the line of an output event to `out` without copying the bytes on the way: the sender's
/// side of [`Event::Stdout`] and [`Event::Stderr`].
pub fn write_output(stream: OutputStream, id: Option<&str>, bytes: &[u8], out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(rename = "type")]
        type_name: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
    }
    let text = std::str::from_utf8(bytes).ok();
    let base64 = text.is_none().then(|| STANDARD.encode(bytes));
    let line = Line {
        type_name: stream.name(),
        id,
        text,
        base64,
    };
    serde_json::to_writer(&mut *out, &line).expect("text and a vector: nothing can fail");
    out.push(b'\n');
}

/// How many of `bytes` can go out now: all, but for a character at the end whose last bytes have
/// not come yet (1 to 3 bytes). Bytes that can never become UTF-8 are not held back.
#[must_use]
pub fn text_boundary(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    for (back, byte) in tail.iter().rev().enumerate() {
        let needed = match byte {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => return bytes.len(),
        };
        let have = back + 1;
        return if have < needed {
            bytes.len() - have
        } else {
            bytes.len()
        };
    }
    bytes.len()
}
