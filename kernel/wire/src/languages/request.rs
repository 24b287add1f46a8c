//! The request, and the checks of each of its fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};

use super::language::Language;
use super::reply::{ErrorKind, Refusal};
use crate::limits::{
    LANGUAGES_ID_BYTES, LANGUAGES_MEMORY_DEFAULT_BYTES, LANGUAGES_MEMORY_MIN_BYTES,
    LANGUAGES_TIMEOUT_DEFAULT_MS, LANGUAGES_TIMEOUT_MAX_MS,
};

/// The one `type` of a request.
const EXECUTE: &str = "execute";

/// Characters of a foreign value that an error shows.
const SHOWN_CHARS: usize = 40;

/// Compile this program, if need be, and run it.
///
/// Only [`parse`](Self::parse) reads one: what a derived reader would say to a wrong field helps nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "execute")]
pub struct Execute {
    /// The client's name for it, in each answer.
    pub id: String,
    /// What it is written in.
    pub language: Language,
    /// The source, of one file.
    #[serde(with = "base64_bytes")]
    pub code: Vec<u8>,
    /// Wall time that it may run, in milliseconds.
    #[serde(rename = "timeout")]
    pub timeout_ms: u64,
    /// Memory that it and all that it starts may hold, in bytes.
    #[serde(rename = "memory_limit")]
    pub memory_limit_bytes: u64,
    /// Its standard input.
    #[serde(with = "base64_bytes", skip_serializing_if = "Vec::is_empty")]
    pub stdin: Vec<u8>,
}

impl Execute {
    /// A request with the limits that one without `timeout` and `memory_limit` has.
    #[must_use]
    pub fn new(id: &str, language: Language, code: &[u8]) -> Self {
        Self {
            id: id.to_owned(),
            language,
            code: code.to_vec(),
            timeout_ms: LANGUAGES_TIMEOUT_DEFAULT_MS,
            memory_limit_bytes: LANGUAGES_MEMORY_DEFAULT_BYTES,
            stdin: Vec::new(),
        }
    }

    /// Reads the payload of a frame. Fields that it does not know are passed over; an optional field that is `null` is
    /// taken as absent.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] to answer with: it names the first wrong field in the order of the protocol's table, and has the
    /// request's id if there is one.
    pub fn parse(payload: &[u8]) -> Result<Self, Refusal> {
        let fields = Fields::read(payload).map_err(|message| Refusal {
            id: String::new(),
            error: ErrorKind::InvalidRequest,
            message,
        })?;
        Self::check(&fields).map_err(|(error, message)| Refusal {
            id: fields.readable_id().to_owned(),
            error,
            message,
        })
    }

    /// The message as JSON: the payload of a frame.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a request holds only text and numbers")
    }

    fn check(fields: &Fields) -> Result<Self, (ErrorKind, String)> {
        let invalid = |message| (ErrorKind::InvalidRequest, message);
        let id = fields.id().map_err(invalid)?;
        fields.request_type().map_err(invalid)?;
        let name = fields.language_name().map_err(invalid)?;
        let language = name.parse().map_err(|_| {
            let message = format!(
                "`language` is `{}`: known are {}",
                shown(name),
                Language::names()
            );
            (ErrorKind::UnsupportedLanguage, message)
        })?;
        let code = fields
            .required_bytes("code", "the source")
            .map_err(invalid)?;
        let timeout_ms = fields.timeout_ms().map_err(invalid)?;
        let memory_limit_bytes = fields.memory_limit_bytes().map_err(invalid)?;
        let stdin = fields.bytes("stdin", "the input").map_err(invalid)?;
        Ok(Self {
            id: id.to_owned(),
            language,
            code,
            timeout_ms: timeout_ms.unwrap_or(LANGUAGES_TIMEOUT_DEFAULT_MS),
            memory_limit_bytes: memory_limit_bytes.unwrap_or(LANGUAGES_MEMORY_DEFAULT_BYTES),
            stdin: stdin.unwrap_or_default(),
        })
    }
}

/// The members of the object that came.
struct Fields(Map<String, Value>);

impl Fields {
    fn read(payload: &[u8]) -> Result<Self, String> {
        match serde_json::from_slice(payload) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(other) => Err(format!(
                "the message is {}: it must be a JSON object",
                described(&other)
            )),
            Err(error) => Err(format!(
                "the message is not JSON ({error}): it must be a JSON object"
            )),
        }
    }

    /// What the client would know its request by, whatever else is wrong with it.
    fn readable_id(&self) -> &str {
        self.id().unwrap_or_default()
    }

    fn id(&self) -> Result<&str, String> {
        let right = format!("a string of 1 to {LANGUAGES_ID_BYTES} bytes");
        let id = self.text("id", &right)?;
        match id.len() {
            1..=LANGUAGES_ID_BYTES => Ok(id),
            0 => Err(format!("`id` is empty: it must be {right}")),
            length => Err(format!("`id` has {length} bytes: it must be {right}")),
        }
    }

    fn request_type(&self) -> Result<(), String> {
        let right = format!("`{EXECUTE}`");
        match self.text("type", &right)? {
            EXECUTE => Ok(()),
            other => Err(format!("`type` is `{}`: it must be {right}", shown(other))),
        }
    }

    fn language_name(&self) -> Result<&str, String> {
        let right = format!("one of {}", Language::names());
        self.text("language", &right)
    }

    fn timeout_ms(&self) -> Result<Option<u64>, String> {
        let right = format!("a whole number of milliseconds from 1 to {LANGUAGES_TIMEOUT_MAX_MS}");
        let is_right = |number| (1..=LANGUAGES_TIMEOUT_MAX_MS).contains(&number);
        self.number("timeout", &right, is_right)
    }

    fn memory_limit_bytes(&self) -> Result<Option<u64>, String> {
        let right = format!("a whole number of bytes, {LANGUAGES_MEMORY_MIN_BYTES} or more");
        let is_right = |number| number >= LANGUAGES_MEMORY_MIN_BYTES;
        self.number("memory_limit", &right, is_right)
    }

    fn text(&self, name: &str, right: &str) -> Result<&str, String> {
        match self.0.get(name) {
            None => Err(format!("`{name}` is missing: it must be {right}")),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(format!(
                "`{name}` is {}: it must be {right}",
                described(other)
            )),
        }
    }

    fn number(
        &self,
        name: &str,
        right: &str,
        is_right: impl Fn(u64) -> bool,
    ) -> Result<Option<u64>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) if is_right(number) => Ok(Some(number)),
                _ => Err(format!(
                    "`{name}` is {}: it must be {right}",
                    described(value)
                )),
            },
        }
    }

    fn required_bytes(&self, name: &str, what: &str) -> Result<Vec<u8>, String> {
        if self.0.contains_key(name) {
            let text = self.text(name, &base64_of(what))?;
            return decoded(name, what, text);
        }
        Err(format!(
            "`{name}` is missing: it must be {}",
            base64_of(what)
        ))
    }

    fn bytes(&self, name: &str, what: &str) -> Result<Option<Vec<u8>>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => {
                let text = self.text(name, &base64_of(what))?;
                decoded(name, what, text).map(Some)
            }
        }
    }
}

fn base64_of(what: &str) -> String {
    format!("{what} in base64, padded and without line breaks")
}

fn decoded(name: &str, what: &str, text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| {
        let right = base64_of(what);
        format!("`{name}` is not base64 ({error}): it must be {right}")
    })
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The beginning of a foreign text, without control characters.
fn shown(text: &str) -> String {
    let mut shown: String = text.escape_debug().take(SHOWN_CHARS).collect();
    if text.escape_debug().nth(SHOWN_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Bytes as base64 text.
pub(super) mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        bytes: &[u8],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(in super::super) fn deserialize<'a, D: Deserializer<'a>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(D::Error::custom)
    }
}
