//! What a session is asked between cells, and while one runs: nothing of it is written down.

use std::time::{Duration, Instant};

use vmrepl_wire::cell::{Completeness, Completions, Inspection, Op, Request, Variables};

use crate::cell::{Match, Variable};
use crate::error::SessionError;
use crate::guest::{Waited, parse};
use crate::limits::{DIGEST_DEADLINE, LOOK_EVERY, RESUME_DEADLINE};
use crate::session::Session;

impl Session {
    /// What could stand at the cursor, a count of characters from the start.
    ///
    /// # Errors
    /// When the machine is lost.
    pub fn complete(
        &mut self,
        code: &str,
        cursor: usize,
    ) -> Result<(Vec<Match>, usize), SessionError> {
        let request = Request {
            cursor: Some(cursor as u64),
            ..Request::of(Op::Complete).with_code(code)
        };
        let found: Completions = self.question(request)?;
        Ok((
            found.matches,
            usize::try_from(found.cursor_start).unwrap_or(cursor),
        ))
    }

    /// What is known about the thing at the cursor, as text.
    ///
    /// # Errors
    /// When the machine is lost.
    pub fn inspect(
        &mut self,
        code: &str,
        cursor: usize,
        detail: u8,
    ) -> Result<Option<String>, SessionError> {
        let request = Request {
            cursor: Some(cursor as u64),
            detail: Some(detail),
            ..Request::of(Op::Inspect).with_code(code)
        };
        let found: Inspection = self.question(request)?;
        let text = found
            .data
            .get("text/plain")
            .and_then(|text| text.as_str())
            .map(str::to_owned);
        Ok(text.filter(|_| found.found))
    }

    /// Whether the code is a whole cell, and how the next line starts when it is not.
    ///
    /// # Errors
    /// When the machine is lost.
    pub fn completeness(&mut self, code: &str) -> Result<Completeness, SessionError> {
        self.question(Request::of(Op::IsComplete).with_code(code))
    }

    /// The user's names.
    ///
    /// # Errors
    /// When the machine is lost.
    pub fn variables(&mut self) -> Result<Vec<Variable>, SessionError> {
        Ok(self
            .question::<Variables>(Request::of(Op::Variables))?
            .variables)
    }

    /// The user's names, each with a sum of its content where that can be told.
    pub(crate) fn variables_with_digests(&mut self) -> Result<Vec<Variable>, SessionError> {
        let request = Request {
            digest: Some(true),
            ..Request::of(Op::Variables)
        };
        Ok(self
            .question_within::<Variables>(request, DIGEST_DEADLINE)?
            .variables)
    }

    fn question<T: serde::de::DeserializeOwned>(
        &mut self,
        request: Request,
    ) -> Result<T, SessionError> {
        self.question_within(request, RESUME_DEADLINE)
    }

    fn question_within<T: serde::de::DeserializeOwned>(
        &mut self,
        request: Request,
        patience: Duration,
    ) -> Result<T, SessionError> {
        self.stand_up()?;
        let began = Instant::now();
        let id = self.next_id("q");
        self.send(&request.with_id(&id))?;
        self.await_resumed(began)?;
        loop {
            self.running.check()?;
            match self.cells.next(Some(Instant::now() + LOOK_EVERY))? {
                Waited::Line(line) => return parse(&line),
                Waited::Closed => return Err(self.lost("it closed the port of cells")),
                Waited::TimedOut if began.elapsed() > patience => {
                    return Err(SessionError::Slow {
                        what: "answer",
                        seconds: patience.as_secs(),
                        console: "-".to_owned(),
                    });
                }
                Waited::TimedOut => {}
            }
        }
    }
}
