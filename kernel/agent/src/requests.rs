//! Requests under way: which the runner has read, which it has not, and what to answer for it when
//! it dies.

use std::collections::VecDeque;

use serde::Deserialize;

use crate::client::Number;
use crate::limits;
use crate::outbox::Outbox;
use crate::output::{Captured, write_answer};

/// The fields of a request, or of the runner's word about one, that the agent may need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Head {
    #[serde(default)]
    pub(crate) id: Option<String>,
    #[serde(default)]
    op: Option<String>,
    #[serde(default)]
    stream: Option<bool>,
}

impl Head {
    /// Reads a request line; `None` when it is no such thing.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Input for a running cell is the one request without an answer.
    fn is_answered(&self) -> bool {
        self.op.as_deref() != Some("stdin")
    }

    /// Whether a cell runs for it.
    fn is_run(&self) -> bool {
        matches!(self.op.as_deref(), None | Some("run" | "warm"))
    }
}

/// A request that was sent to the runner and that the runner has not read, as far as is known.
#[derive(Debug)]
enum Unread {
    Line(Box<[u8]>),
    Parsed(Option<Head>),
}

impl Unread {
    /// Short lines are parsed only when they must be: nearly all are read and answered at once.
    fn new(line: &[u8]) -> Self {
        if line.len() <= limits::KEPT_REQUEST_BYTES {
            Self::Line(line.into())
        } else {
            Self::Parsed(Head::parse(line))
        }
    }

    /// What is no request at all is answered too.
    fn is_answered(&self) -> bool {
        const INPUT: &[u8] = b"\"stdin\"";
        let named = match self {
            Self::Line(line) => line.windows(INPUT.len()).any(|window| window == INPUT),
            Self::Parsed(_) => true,
        };
        !named || self.head().is_none_or(|head| head.is_answered())
    }

    fn head(&self) -> Option<Head> {
        match self {
            Self::Line(line) => Head::parse(line),
            Self::Parsed(head) => head.clone(),
        }
    }
}

/// A request that the runner has read.
#[derive(Debug)]
struct Open {
    client: Number,
    /// As the runner told it.
    head: Head,
    /// As the client sent it.
    request: Option<Unread>,
}

/// All requests between their arrival and their answer.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    unread: VecDeque<(Number, Unread)>,
    open: Vec<Open>,
}

impl Requests {
    pub(crate) fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.open.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.unread.len() + self.open.len() >= limits::OPEN_REQUESTS
    }

    /// Whether this client waits for an answer.
    pub(crate) fn any_of(&self, client: Number) -> bool {
        self.open.iter().any(|open| open.client == client)
            || self.unread.iter().any(|(number, _)| *number == client)
    }

    /// Whether a cell waits behind the running one.
    pub(crate) fn any_run(&self) -> bool {
        self.open.iter().any(|open| open.head.is_run())
    }

    /// Whether a cell of this name has been asked for and not been answered.
    pub(crate) fn runs(&self, name: &str) -> bool {
        let is_it = |head: &Head| head.is_run() && head.id.as_deref() == Some(name);
        self.open.iter().any(|open| is_it(&open.head))
            || self
                .unread
                .iter()
                .any(|(_, unread)| unread.head().is_some_and(|head| is_it(&head)))
    }

    /// A line goes to the runner.
    pub(crate) fn sent(&mut self, client: Number, line: &[u8]) {
        let unread = Unread::new(line);
        if unread.is_answered() {
            self.unread.push_back((client, unread));
        }
    }

    /// The runner has read a request that it will answer. Returns whether a cell will run for it.
    pub(crate) fn received(&mut self, client: Number, head: Head) -> bool {
        let request = self.take_unread(client);
        let runs = head.is_run();
        if self.open.len() < limits::OPEN_REQUESTS {
            self.open.push(Open {
                client,
                head,
                request,
            });
        }
        runs
    }

    /// The runner has answered this client: `id` when the answer tells one, `runs` when it is a
    /// cell's.
    pub(crate) fn answered(
        &mut self,
        client: Number,
        runs: bool,
        id: impl FnOnce() -> Option<String>,
    ) {
        let mut of_client = self
            .open
            .iter()
            .enumerate()
            .filter(|(_, open)| open.client == client);
        let at = match (of_client.next(), of_client.next()) {
            (None, _) => return drop(self.take_unread(client)),
            (Some((at, _)), None) => at,
            (Some((first, _)), Some(_)) => {
                let id = id();
                let mut alike = self
                    .open
                    .iter()
                    .enumerate()
                    .filter(|(_, open)| open.client == client && open.head.is_run() == runs);
                let exact = alike.clone().find(|(_, open)| open.head.id == id);
                exact.or_else(|| alike.next()).map_or(first, |(at, _)| at)
            }
        };
        self.open.remove(at);
    }

    /// One line of this client was read.
    fn take_unread(&mut self, client: Number) -> Option<Unread> {
        let at = self
            .unread
            .iter()
            .position(|(number, _)| *number == client)?;
        self.unread.remove(at).map(|(_, unread)| unread)
    }

    /// Drops what a client waited for: it is gone.
    pub(crate) fn forget(&mut self, client: Number) {
        self.unread.retain(|(number, _)| *number != client);
        self.open.retain(|open| open.client != client);
    }

    /// Takes everything, in the order of arrival, for the agent to answer.
    pub(crate) fn take_all(&mut self) -> Vec<(Number, Head)> {
        let mut all = Vec::new();
        for Open {
            client,
            head,
            request,
        } in std::mem::take(&mut self.open)
        {
            all.push((
                client,
                request.and_then(|request| request.head()).unwrap_or(head),
            ));
        }
        for (client, unread) in std::mem::take(&mut self.unread) {
            all.push((client, unread.head().unwrap_or_default()));
        }
        all
    }
}

/// What the agent answers in the runner's place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure<'a> {
    pub(crate) message: &'a str,
    /// The value of `status`.
    pub(crate) status: &'static str,
}

/// Appends the agent's own answer to a request. `extended` answers carry more than the plain form.
pub(crate) fn write_failure(
    failure: Failure<'_>,
    head: &Head,
    extended: bool,
    captured: &Captured,
    out: &mut Outbox,
) {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let kind = if head.stream == Some(true) {
        "\"type\": \"done\", "
    } else {
        ""
    };
    let prefix = format!("{{{kind}\"exit_code\": 2, ");
    let extended = extended || head.id.is_some() || head.op.is_some() || head.stream.is_some();
    let error = text(failure.message);
    let mut suffix = String::new();
    if extended {
        suffix.push_str("\"truncated\": null, ");
    }
    suffix.push_str(&format!(
        "\"result_repr\": null, \"error\": {error}, \"tables\": []"
    ));
    if let Some(id) = &head.id {
        suffix.push_str(&format!(", \"id\": {}", text(id)));
    }
    if extended {
        suffix.push_str(&format!(", \"status\": {}", text(failure.status)));
    }
    suffix.push('}');
    write_answer(prefix.as_bytes(), captured, suffix.as_bytes(), out);
}

impl Head {
    /// A running cell's, as the runner told it.
    pub(crate) fn of_cell(id: Option<String>, stream: bool) -> Self {
        Self {
            id,
            op: None,
            stream: stream.then_some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(line: &str) -> Head {
        Head::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn read_requests_leave_in_order_and_input_leaves_no_trace() {
        let mut requests = Requests::default();
        for line in [
            r#"{"op":"stdin","data":"x"}"#,
            r#"{"code":"1"}"#,
            r#"{"op":"ping"}"#,
        ] {
            requests.sent(1, line.as_bytes());
        }
        requests.received(1, head(r#"{"op":"run","id":null}"#));
        assert!(requests.any_run());
        assert_eq!(requests.unread.len(), 1);
        requests.received(1, head(r#"{"op":"ping","id":null}"#));
        assert!(requests.unread.is_empty());
        requests.answered(1, false, || None);
        assert_eq!(requests.take_all(), [(1, head(r#"{"code":"1"}"#))]);
    }

    #[test]
    fn a_cell_has_its_name_from_its_arrival_to_its_answer() {
        let mut requests = Requests::default();
        requests.sent(1, br#"{"op":"ping","id":"b"}"#);
        requests.sent(2, br#"{"code":"1","id":"a"}"#);
        assert!(requests.runs("a") && !requests.runs("b"));
        requests.received(2, head(r#"{"op":"run","id":"a"}"#));
        assert!(requests.runs("a"));
        requests.answered(2, true, || Some("a".to_owned()));
        assert!(!requests.runs("a"));
    }

    #[test]
    fn an_answer_without_a_receipt_settles_the_line() {
        let mut requests = Requests::default();
        requests.sent(1, b"not json");
        requests.sent(2, b"not json");
        requests.answered(1, false, || None);
        assert!(!requests.any_of(1));
        assert_eq!(requests.take_all(), [(2, Head::default())]);
    }

    #[test]
    fn answers_find_their_request_by_id() {
        let mut requests = Requests::default();
        for id in ["a", "b", "c"] {
            requests.received(4, head(&format!(r#"{{"op":"complete","id":"{id}"}}"#)));
        }
        requests.answered(4, false, || Some("b".to_owned()));
        let left: Vec<_> = requests
            .take_all()
            .into_iter()
            .filter_map(|(_, head)| head.id)
            .collect();
        assert_eq!(left, ["a", "c"]);
    }

    #[test]
    fn the_plain_failure_has_the_plain_fields() {
        let failure = Failure {
            message: "the runner was lost",
            status: "runner_lost",
        };
        let mut out = Outbox::default();
        write_failure(
            failure,
            &Head::default(),
            false,
            &Captured::default(),
            &mut out,
        );
        write_failure(
            failure,
            &head(r#"{"id":"x","stream":true}"#),
            true,
            &Captured::default(),
            &mut out,
        );
        let text = String::from_utf8(out.as_slice().to_vec()).unwrap();
        let expected = concat!(
            r#"{"exit_code": 2, "stdout": "", "stderr": "", "result_repr": null, "#,
            r#""error": "the runner was lost", "tables": []}"#,
            "\n",
            r#"{"type": "done", "exit_code": 2, "stdout": "", "stderr": "", "#,
            r#""truncated": {"stdout": false, "stderr": false}, "result_repr": null, "#,
            r#""error": "the runner was lost", "tables": [], "id": "x", "status": "runner_lost"}"#,
            "\n",
        );
        assert_eq!(text, expected);
    }
}
