//! A small client for QEMU's monitor: one command, one answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::limits::{QMP_DEADLINE, QMP_LINE_BYTES_MAX};

/// What can go wrong at the monitor.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    #[error("could not talk to QEMU's monitor")]
    Io(#[source] std::io::Error),
    #[error("QEMU closed its monitor")]
    Closed,
    #[error("QEMU's monitor said {line:?}, which is not JSON")]
    Json {
        line: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("QEMU refused {command}: {message}")]
    Refused { command: String, message: String },
}

/// A monitor connection. Capabilities are negotiated with the first command.
#[derive(Debug)]
pub(crate) struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    greeted: bool,
}

impl Qmp {
    pub(crate) fn new(stream: UnixStream) -> Result<Self, QmpError> {
        stream
            .set_read_timeout(Some(QMP_DEADLINE))
            .map_err(QmpError::Io)?;
        stream
            .set_write_timeout(Some(QMP_DEADLINE))
            .map_err(QmpError::Io)?;
        let writer = stream.try_clone().map_err(QmpError::Io)?;
        Ok(Self {
            reader: BufReader::new(stream),
            writer,
            greeted: false,
        })
    }

    /// Runs one command and returns its answer. Events that pass by are dropped.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        if !self.greeted {
            // QEMU reads the negotiation whether or not its greeting was read first.
            self.exchange("qmp_capabilities", &json!({}))?;
            self.greeted = true;
        }
        self.exchange(command, arguments)
    }

    fn exchange(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        let mut line = json!({"execute": command, "arguments": arguments}).to_string();
        line.push('\n');
        self.writer
            .write_all(line.as_bytes())
            .map_err(QmpError::Io)?;
        loop {
            let mut answer = self.read()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let message = error
                    .get("desc")
                    .and_then(Value::as_str)
                    .unwrap_or("no reason given");
                return Err(QmpError::Refused {
                    command: command.to_owned(),
                    message: message.to_owned(),
                });
            }
        }
    }

    fn read(&mut self) -> Result<Value, QmpError> {
        let mut line = String::new();
        let limit = u64::try_from(QMP_LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let read = (&mut self.reader)
            .take(limit)
            .read_line(&mut line)
            .map_err(QmpError::Io)?;
        if read == 0 {
            return Err(QmpError::Closed);
        }
        serde_json::from_str(&line).map_err(|source| QmpError::Json { line, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_among_events_and_refusals_are_told() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut qmp = Qmp::new(ours).unwrap();
        let script = concat!(
            "{\"QMP\":{}}\n{\"return\":{}}\n{\"event\":\"STOP\"}\n{\"return\":{\"a\":1}}\n",
            "{\"error\":{\"class\":\"x\",\"desc\":\"no such thing\"}}\nnot json\n"
        );
        (&theirs).write_all(script.as_bytes()).unwrap();
        assert_eq!(qmp.execute("query", &json!({})).unwrap(), json!({"a": 1}));
        let refused = qmp.execute("bad", &json!({})).unwrap_err();
        assert_eq!(refused.to_string(), "QEMU refused bad: no such thing");
        assert!(matches!(
            qmp.execute("x", &json!({})),
            Err(QmpError::Json { .. })
        ));
        drop(theirs);
        assert!(matches!(
            qmp.execute("x", &json!({})),
            Err(QmpError::Closed | QmpError::Io(_))
        ));
    }
}
