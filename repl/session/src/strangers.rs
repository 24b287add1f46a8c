//! A client of the languages port: programs of strangers, one after the other.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vmrepl_wire::languages::{Execute, LanguagesDecoder, Outcome, Reply, encode};
use vmrepl_wire::port;

use crate::error::SessionError;
use crate::session::Session;

/// A connection to the languages port.
#[derive(Debug)]
pub struct Strangers {
    stream: UnixStream,
    decoder: LanguagesDecoder,
}

/// What came of one program, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Its result.
    pub outcome: Outcome,
    /// From the request to its acknowledgement.
    pub acknowledged: Duration,
    /// From the request to the result.
    pub took: Duration,
}

impl Session {
    /// Opens a connection for programs of strangers.
    ///
    /// # Errors
    /// When the machine is lost.
    pub fn strangers(&mut self) -> Result<Strangers, SessionError> {
        self.stand_up()?;
        // A program would draw random numbers of another copy.
        self.await_resumed(Instant::now())?;
        Ok(Strangers {
            stream: self.connect(port::LANGUAGES)?,
            decoder: LanguagesDecoder::default(),
        })
    }
}

impl Strangers {
    /// Runs one program to its end.
    ///
    /// # Errors
    /// When the guest refuses it, speaks nonsense or is lost.
    pub fn execute(&mut self, order: &Execute) -> Result<Executed, SessionError> {
        let began = Instant::now();
        let json = serde_json::to_vec(order).map_err(|error| failed(error.into()))?;
        let mut request = Vec::with_capacity(json.len() + 4);
        encode(&json, &mut request).map_err(|error| failed(std::io::Error::other(error)))?;
        self.stream.write_all(&request).map_err(failed)?;
        let mut acknowledged = Duration::ZERO;
        loop {
            match self.reply()? {
                Reply::Ack { .. } => acknowledged = began.elapsed(),
                Reply::Result(outcome) => {
                    let took = began.elapsed();
                    return Ok(Executed {
                        outcome,
                        acknowledged,
                        took,
                    });
                }
                Reply::Error(refusal) => {
                    let message = refusal.message;
                    return Err(SessionError::Refused { message });
                }
                Reply::Unknown => {}
            }
        }
    }

    fn reply(&mut self) -> Result<Reply, SessionError> {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let frame = self.decoder.frame();
            if let Some(payload) = frame.map_err(|error| failed(std::io::Error::other(error)))? {
                return serde_json::from_slice(payload).map_err(|source| SessionError::Answer {
                    line: String::from_utf8_lossy(&payload[..payload.len().min(200)]).into_owned(),
                    source,
                });
            }
            match self.stream.read(&mut bytes).map_err(failed)? {
                0 => {
                    let why = "the guest closed the port of languages".to_owned();
                    return Err(SessionError::MachineLost { why });
                }
                count => self.decoder.push(&bytes[..count]),
            }
        }
    }
}

fn failed(source: std::io::Error) -> SessionError {
    SessionError::Guest {
        step: "run a program on the languages port",
        source,
    }
}
