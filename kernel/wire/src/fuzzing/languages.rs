//! What clients of the languages port send, and what they are answered.

use super::Script;
use super::lines::message;
use crate::languages::{self, Execute, HEADER_BYTES, LanguagesDecoder, Reply};
use crate::limits::{
    LANGUAGES_ID_BYTES, LANGUAGES_MEMORY_MIN_BYTES, LANGUAGES_PAYLOAD_BYTES,
    LANGUAGES_TIMEOUT_MAX_MS,
};

/// Cuts the input into frames and reads each payload, and the input as a whole, as a message: the first byte is the size
/// of the pieces that it comes in.
pub fn languages(input: &[u8]) {
    let mut script = Script(input);
    let piece_bytes = usize::from(script.byte()).max(1);
    let bytes = script.0;
    read(bytes);
    let mut decoder = LanguagesDecoder::default();
    let mut passed = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        decoder.push(piece);
        loop {
            match decoder.frame() {
                Ok(Some(payload)) => {
                    read(payload);
                    languages::encode(payload, &mut passed).expect("what came in may go out");
                }
                Ok(None) => break,
                Err(_) => return assert!(bytes.starts_with(&passed)),
            }
        }
    }
    assert!(bytes.starts_with(&passed));
    assert_eq!(decoder.is_empty(), passed.len() == bytes.len());
}

fn read(payload: &[u8]) {
    message::<Reply>(payload);
    match Execute::parse(payload) {
        Ok(request) => {
            assert!((1..=LANGUAGES_ID_BYTES).contains(&request.id.len()));
            assert!((1..=LANGUAGES_TIMEOUT_MAX_MS).contains(&request.timeout_ms));
            assert!(request.memory_limit_bytes >= LANGUAGES_MEMORY_MIN_BYTES);
            assert_eq!(Execute::parse(&request.to_json()), Ok(request));
        }
        Err(refusal) => {
            assert!(refusal.id.len() <= LANGUAGES_ID_BYTES);
            assert!(!refusal.message.contains('\n'), "an error is one line");
            let reply = Reply::from(refusal).to_json();
            // Ids and what is shown of a value are short, so an answer always fits.
            assert!(HEADER_BYTES + reply.len() < LANGUAGES_PAYLOAD_BYTES / 1024);
            message::<Reply>(&reply);
        }
    }
}
