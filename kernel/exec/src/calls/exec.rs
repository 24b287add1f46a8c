//! `Exec`: a program, its input and its output.
//!
//! Input and output are carried apart: a client that does not read its output still resizes, interrupts and feeds the
//! program. Input runs in a task; the output is taken when HTTP/2 has room for it. Each waits for its own side only, so a
//! program that does not read holds up its client, and a client that does not read its program.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tonic::{Status, Streaming};
use vmrepl_wire::exec::{ExecInput, ExecStart, TIMED_OUT, WindowSize};
use vmrepl_wire::files::{FilesOp, FilesReply, Tag};

use crate::core::{Core, CoreError, Receiver, Said, Sender};
use crate::proto::exec::exec_request::Request;
use crate::proto::exec::exec_response::Response;
use crate::proto::exec::{self, ExecRequest, ExecResponse};

/// The responses of one call. Dropped, it drops the connection to the core, and the agent kills the program.
pub(super) struct Answers {
    state: State,
    /// Given back with the last response.
    place: Option<OwnedSemaphorePermit>,
}

enum State {
    /// The client has not said yet what to run, or the core has not taken it yet.
    Starting(Pin<Box<dyn Future<Output = Result<Running, Status>> + Send>>),
    Running(Running),
    Over,
}

struct Running {
    receiver: Receiver,
    /// One task, which ends when it is dropped.
    input: JoinSet<Result<(), Status>>,
}

impl Answers {
    /// Nothing is awaited here, so the client hears at once that its call is served.
    pub(super) fn new(
        core: Arc<Core>,
        requests: Streaming<ExecRequest>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            state: State::Starting(Box::pin(start(core, requests))),
            place: Some(place),
        }
    }
}

impl Stream for Answers {
    type Item = Result<ExecResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let answer = match &mut self.state {
                State::Over => return Poll::Ready(None),
                State::Starting(starting) => match ready!(starting.as_mut().poll(context)) {
                    Ok(running) => {
                        self.state = State::Running(running);
                        continue;
                    }
                    Err(status) => Err(status),
                },
                State::Running(running) => ready!(running.poll(context)),
            };
            let is_last = !matches!(answer, Ok(Response::Stdout(_) | Response::Stderr(_)));
            if is_last {
                self.state = State::Over;
                self.place = None;
            }
            return Poll::Ready(Some(answer.map(|response| ExecResponse {
                response: Some(response),
            })));
        }
    }
}

impl Running {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Response, Status>> {
        // What the program has said comes first: its end may be why the client's input is in vain.
        if let Poll::Ready(said) = self.receiver.poll(context) {
            return Poll::Ready(match said? {
                Said::Bytes(Tag::Stdout, bytes) => Ok(Response::Stdout(bytes)),
                Said::Bytes(Tag::Stderr, bytes) => Ok(Response::Stderr(bytes)),
                Said::Bytes(tag, _) => Err(CoreError::OutOfTurn(tag).into()),
                Said::End => Err(CoreError::OutOfTurn(Tag::End).into()),
                Said::Reply(reply) => exit_code(&reply).map(Response::ExitCode),
            });
        }
        match ready!(self.input.poll_join_next(context)) {
            Some(Ok(Err(status))) => Poll::Ready(Err(status)),
            Some(Err(fault)) => Poll::Ready(Err(Status::internal(fault.to_string()))),
            // All input has been carried; the receiver wakes this task from now on.
            Some(Ok(Ok(()))) | None => Poll::Pending,
        }
    }
}

fn exit_code(reply: &FilesReply) -> Result<i32, Status> {
    let timed_out = reply.timeout.map(|_| TIMED_OUT);
    let code = reply.exit_code.or(timed_out);
    code.ok_or_else(|| Status::internal("the agent's answer has no exit code"))
}

async fn start(core: Arc<Core>, mut requests: Streaming<ExecRequest>) -> Result<Running, Status> {
    let mut window = None;
    let start = loop {
        let request = requests
            .message()
            .await?
            .and_then(|message| message.request);
        match request {
            Some(Request::Start(start)) => break start,
            Some(Request::WindowSize(size)) => window = Some(window_size(size)?),
            Some(Request::Stdin(_)) | None => {
                return Err(Status::invalid_argument(
                    "the first message must be a start",
                ));
            }
        }
    };
    let tty = start.tty;
    let op = FilesOp::Exec(order(start, window)?);
    let (sender, receiver) = core.open(op).await?;
    let mut input = JoinSet::new();
    input.spawn(carry(requests, sender, tty));
    Ok(Running { receiver, input })
}

fn order(start: exec::ExecStart, window: Option<WindowSize>) -> Result<ExecStart, Status> {
    let timeout = match start.timeout_seconds {
        0 => None,
        seconds @ 1.. => Some(f64::from(seconds)),
        seconds => {
            return Err(Status::invalid_argument(format!(
                "timeout_seconds: {seconds} is negative"
            )));
        }
    };
    Ok(ExecStart {
        command: start.command,
        tty: start.tty,
        window: window.filter(|_| start.tty),
        stdin: true,
        env: start.env,
        cwd: Some(start.cwd).filter(|cwd| !cwd.is_empty()),
        timeout,
        ..ExecStart::default()
    })
}

/// Carries what the client says to the core, until it says no more.
async fn carry(
    mut requests: Streaming<ExecRequest>,
    sender: Sender,
    tty: bool,
) -> Result<(), Status> {
    while let Some(message) = requests.message().await? {
        match message.request {
            Some(Request::Stdin(bytes)) => sender.data(Tag::Stdin, &bytes).await?,
            Some(Request::WindowSize(size)) => {
                let resize = ExecInput::Resize(window_size(size)?);
                // Without a terminal it means nothing.
                if tty {
                    sender.control(&resize).await?;
                }
            }
            Some(Request::Start(_)) => {
                return Err(Status::invalid_argument("a call starts one program"));
            }
            // A kind of a later version.
            None => {}
        }
    }
    Ok(sender.end().await?)
}

fn window_size(size: exec::WindowSize) -> Result<WindowSize, Status> {
    let bounded = |name, value: u32| {
        u16::try_from(value)
            .map_err(|_| Status::invalid_argument(format!("{name}: {value} is over {}", u16::MAX)))
    };
    Ok(WindowSize {
        rows: bounded("rows", size.rows)?,
        cols: bounded("cols", size.cols)?,
    })
}
