use serde_json::{Value, json};

use super::*;
use crate::limits::{
    LANGUAGES_ID_BYTES, LANGUAGES_MEMORY_DEFAULT_BYTES, LANGUAGES_MEMORY_MIN_BYTES,
    LANGUAGES_OUTPUT_BYTES, LANGUAGES_PAYLOAD_BYTES, LANGUAGES_TIMEOUT_DEFAULT_MS,
    LANGUAGES_TIMEOUT_MAX_MS,
};

fn sound() -> Value {
    json!({"id": "r-1", "type": "execute", "language": "python", "code": "cHJpbnQoMSk=",
           "timeout": 30000, "memory_limit": 134_217_728, "stdin": "aGk="})
}

fn with(name: &str, value: Value) -> Value {
    let mut request = sound();
    request[name] = value;
    request
}

fn without(name: &str) -> Value {
    let mut request = sound();
    request.as_object_mut().unwrap().remove(name);
    request
}

fn parse(request: &Value) -> Result<Execute, Refusal> {
    Execute::parse(request.to_string().as_bytes())
}

fn refusal(request: &Value) -> Refusal {
    parse(request).expect_err(&request.to_string())
}

#[test]
fn a_sound_request_is_read_to_the_last_byte() {
    let request = parse(&sound()).unwrap();
    let expected = Execute {
        stdin: b"hi".to_vec(),
        ..Execute::new("r-1", Language::Python, b"print(1)")
    };
    assert_eq!(request, expected);
    assert_eq!(Execute::parse(&request.to_json()), Ok(request));
}

#[test]
fn optional_fields_have_defaults_and_null_is_absent() {
    for name in ["timeout", "memory_limit", "stdin"] {
        assert_eq!(parse(&without(name)), parse(&with(name, Value::Null)));
    }
    let request = parse(&without("timeout")).unwrap();
    assert_eq!(request.timeout_ms, LANGUAGES_TIMEOUT_DEFAULT_MS);
    let request = parse(&without("memory_limit")).unwrap();
    assert_eq!(request.memory_limit_bytes, LANGUAGES_MEMORY_DEFAULT_BYTES);
    assert_eq!(parse(&without("stdin")).unwrap().stdin, b"");
}

#[test]
fn fields_of_a_later_client_are_passed_over() {
    assert_eq!(parse(&with("priority", json!(9))), parse(&sound()));
}

#[test]
fn each_wrong_field_is_named_with_what_is_right() {
    let long = "x".repeat(LANGUAGES_ID_BYTES + 1);
    for (name, value, right) in [
        (
            "type",
            json!("run"),
            "`type` is `run`: it must be `execute`",
        ),
        ("type", json!(1), "`type` is 1: it must be `execute`"),
        (
            "language",
            json!(["go"]),
            "`language` is a list: it must be one of python",
        ),
        (
            "code",
            json!(null),
            "`code` is null: it must be the source in base64",
        ),
        (
            "code",
            json!("a?=="),
            "`code` is not base64 (Invalid symbol 63, offset 1.)",
        ),
        ("code", json!("cHJpbnQoMSk"), "`code` is not base64"),
        ("code", json!("cHJp\nbnQo"), "without line breaks"),
        (
            "timeout",
            json!(0),
            "`timeout` is 0: it must be a whole number of milliseconds",
        ),
        (
            "timeout",
            json!(LANGUAGES_TIMEOUT_MAX_MS + 1),
            "from 1 to 600000",
        ),
        ("timeout", json!(-5), "`timeout` is -5"),
        ("timeout", json!(1.5), "`timeout` is 1.5"),
        ("timeout", json!("30000"), "`timeout` is a string"),
        (
            "memory_limit",
            json!(LANGUAGES_MEMORY_MIN_BYTES - 1),
            "16777216 or more",
        ),
        ("memory_limit", json!(true), "`memory_limit` is a boolean"),
        (
            "stdin",
            json!({}),
            "`stdin` is an object: it must be the input in base64",
        ),
        ("stdin", json!("!"), "`stdin` is not base64"),
    ] {
        let refused = refusal(&with(name, value));
        assert_eq!(refused.error, ErrorKind::InvalidRequest);
        assert_eq!(refused.id, "r-1", "the id could be read");
        assert!(refused.message.contains(right), "{refused}");
    }
    for (id, right) in [
        (json!(7), "`id` is 7: it must be a string"),
        (json!(""), "`id` is empty"),
        (json!(long), "`id` has 1025 bytes"),
    ] {
        let refused = refusal(&with("id", id));
        assert_eq!(refused.id, "", "there is none to tell");
        assert!(refused.message.contains(right), "{refused}");
    }
}

#[test]
fn each_missing_field_is_named() {
    for name in ["id", "type", "language", "code"] {
        let message = refusal(&without(name)).message;
        assert!(
            message.starts_with(&format!("`{name}` is missing: it must be ")),
            "{message}"
        );
    }
}

#[test]
fn values_at_their_bounds_pass() {
    for (name, value) in [
        ("id", json!("x".repeat(LANGUAGES_ID_BYTES))),
        ("timeout", json!(1)),
        ("timeout", json!(LANGUAGES_TIMEOUT_MAX_MS)),
        ("memory_limit", json!(LANGUAGES_MEMORY_MIN_BYTES)),
        ("memory_limit", json!(u64::MAX)),
        ("code", json!("")),
        ("stdin", json!("")),
    ] {
        parse(&with(name, value)).unwrap();
    }
}

#[test]
fn an_unknown_language_is_told_which_are_known() {
    let refused = refusal(&with("language", json!("Perl\u{1b}[2J")));
    assert_eq!(refused.error, ErrorKind::UnsupportedLanguage);
    assert_eq!(
        refused.message,
        "`language` is `Perl\\u{1b}[2J`: known are python, typescript, javascript, csharp, cpp, rust, go, bash"
    );
    let long = refusal(&with("language", json!("é".repeat(1000)))).message;
    assert!(long.contains("é...`"), "{long}");
    for language in Language::ALL {
        let request = parse(&with("language", json!(language.name()))).unwrap();
        assert_eq!(request.language, language);
        assert_eq!(json!(language), json!(language.name()));
    }
}

#[test]
fn what_is_no_object_is_told_so() {
    for (payload, right) in [
        (&b""[..], "the message is not JSON"),
        (b"{", "the message is not JSON"),
        (b"{}{}", "the message is not JSON"),
        (b"\xff", "the message is not JSON"),
        (b"[1]", "the message is a list: it must be a JSON object"),
        (b"null", "the message is null"),
    ] {
        let refused = Execute::parse(payload).unwrap_err();
        assert_eq!(
            (refused.id.as_str(), refused.error),
            ("", ErrorKind::InvalidRequest)
        );
        assert!(refused.message.contains(right), "{refused}");
    }
    let deep = "[".repeat(100_000);
    Execute::parse(deep.as_bytes()).unwrap_err();
}

#[test]
fn the_fullest_result_fits_one_frame() {
    let reply = Reply::from(Outcome {
        id: "\u{1}".repeat(LANGUAGES_ID_BYTES),
        status: Status::CompilationError,
        stdout: vec![0xff; LANGUAGES_OUTPUT_BYTES],
        stderr: vec![0xff; LANGUAGES_OUTPUT_BYTES],
        exit_code: i32::MIN,
        execution_time_ms: u64::MAX,
        memory_used_bytes: u64::MAX,
        compilation_time_ms: u64::MAX,
        cpu_user_ms: Some(u64::MAX),
        cpu_system_ms: Some(u64::MAX),
        sandbox: Some(vec!["layer".repeat(10); 100]),
        truncated: Some(crate::cell::Truncated {
            stdout: true,
            stderr: true,
        }),
        cached: Some(true),
    });
    header(reply.to_json().len()).unwrap();
}

#[test]
fn the_longest_frame_passes_and_one_more_byte_does_not() {
    let mut bytes = Vec::new();
    let payload = vec![b' '; LANGUAGES_PAYLOAD_BYTES + 1];
    encode(&payload[1..], &mut bytes).unwrap();
    let mut decoder = LanguagesDecoder::default();
    decoder.push(&bytes);
    let longest = decoder.frame().unwrap().unwrap();
    assert_eq!(longest.len(), LANGUAGES_PAYLOAD_BYTES);
    assert!(decoder.is_empty());
    let error = LanguagesFrameError::TooLong {
        length_bytes: LANGUAGES_PAYLOAD_BYTES + 1,
    };
    assert_eq!(encode(&payload, &mut bytes), Err(error));
    decoder.push(&[1, 0, 0, 1]);
    assert_eq!(decoder.frame(), Err(error), "before any of the payload");
}

#[test]
fn what_a_later_agent_adds_is_passed_over() {
    let reply = |text: &str| serde_json::from_str::<Reply>(text).unwrap();
    assert_eq!(
        reply(r#"{"type":"progress","id":"r-1","done":3}"#),
        Reply::Unknown
    );
    let refused = reply(r#"{"id":"r-1","type":"error","error":"tired","message":"","x":1}"#);
    assert!(matches!(refused, Reply::Error(refusal) if refusal.error == ErrorKind::Unknown));
}
