//! A gRPC client whose calls the test drives one step at a time.

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use proto::exec::exec_request::Request;
use proto::exec::exec_response::Response;
use proto::exec::exec_service_client::ExecServiceClient;
use proto::exec::{ExecRequest, ExecResponse, ExecStart, WindowSize};
use proto::guest::guest_service_client::GuestServiceClient;

/// After which a test has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The messages and clients of `proto/`.
#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "made by a program"
)]
pub(crate) mod proto {
    pub(crate) mod exec {
        include!(concat!(env!("OUT_DIR"), "/client/exec.rs"));
    }
    pub(crate) mod guest {
        include!(concat!(env!("OUT_DIR"), "/client/guest.rs"));
    }
}

/// The two names under which programs are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Exec,
    Guest,
}

/// One connection to the program.
pub(crate) struct Client {
    runtime: Arc<Runtime>,
    channel: Channel,
}

impl Client {
    pub(crate) fn new(connection: UnixStream) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        connection.set_nonblocking(true).unwrap();
        let connection = Mutex::new(Some(connection));
        let connector = tower::service_fn(move |_| {
            let connection = connection.lock().unwrap().take();
            async {
                let gone = || std::io::Error::other("there is one connection");
                let stream = tokio::net::UnixStream::from_std(connection.ok_or_else(gone)?)?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let endpoint = Endpoint::from_static("http://guest");
        let channel = runtime
            .block_on(endpoint.connect_with_connector(connector))
            .unwrap();
        Self {
            runtime: Arc::new(runtime),
            channel,
        }
    }

    /// Waits for one step of a call.
    pub(crate) fn wait<T>(&self, step: impl Future<Output = T>) -> T {
        wait(&self.runtime, step)
    }

    pub(crate) fn guest(&self) -> GuestServiceClient<Channel> {
        GuestServiceClient::new(self.channel.clone())
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A call whose first message is yet to come.
    pub(crate) fn call(&self, name: Name) -> Result<Call, Status> {
        let (requests, stream) = mpsc::channel(1);
        let stream = Requests(stream);
        let responses = self.wait(async {
            match name {
                Name::Exec => ExecServiceClient::new(self.channel()).exec(stream).await,
                Name::Guest => self.guest().exec(stream).await,
            }
        });
        Ok(Call {
            runtime: Arc::clone(&self.runtime),
            requests: Some(requests),
            responses: responses?.into_inner(),
        })
    }

    /// A call that has started something.
    pub(crate) fn start(&self, start: ExecStart) -> Call {
        let call = self.call(Name::Exec).unwrap();
        call.send(Request::Start(start));
        call
    }
}

fn wait<T>(runtime: &Runtime, step: impl Future<Output = T>) -> T {
    runtime
        .block_on(async { tokio::time::timeout(DEADLINE, step).await })
        .expect("nothing came within the deadline")
}

/// What a channel holds, as the stream that a call takes.
struct Requests(mpsc::Receiver<ExecRequest>);

impl Stream for Requests {
    type Item = ExecRequest;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<ExecRequest>> {
        self.0.poll_recv(context)
    }
}

/// One call. Dropped, it is cancelled.
pub(crate) struct Call {
    runtime: Arc<Runtime>,
    requests: Option<mpsc::Sender<ExecRequest>>,
    responses: Streaming<ExecResponse>,
}

impl Call {
    pub(crate) fn send(&self, request: Request) {
        assert!(self.try_send(request, DEADLINE), "it takes no more");
    }

    /// Whether the message was taken in this time.
    pub(crate) fn try_send(&self, request: Request, within: Duration) -> bool {
        let message = ExecRequest {
            request: Some(request),
        };
        let requests = self.requests.as_ref().unwrap();
        self.runtime
            .block_on(async { tokio::time::timeout(within, requests.send(message)).await })
            .is_ok_and(|sent| sent.is_ok())
    }

    pub(crate) fn stdin(&self, bytes: &'static [u8]) {
        self.send(Request::Stdin(Bytes::from_static(bytes)));
    }

    pub(crate) fn resize(&self, rows: u32, cols: u32) {
        self.send(Request::WindowSize(WindowSize { rows, cols }));
    }

    /// Ends the requests.
    pub(crate) fn end(&mut self) {
        self.requests = None;
    }

    /// The next response; none at a good end.
    pub(crate) fn next(&mut self) -> Result<Option<Response>, Status> {
        let message = wait(&self.runtime, self.responses.message())?;
        Ok(message.map(|message| message.response.unwrap()))
    }

    /// The last two steps of a call that ended well.
    pub(crate) fn exit_code(&mut self) -> i32 {
        let Some(Response::ExitCode(code)) = self.next().unwrap() else {
            panic!("something else came before the exit code");
        };
        assert_eq!(self.next().unwrap(), None);
        code
    }
}

/// A program to start.
pub(crate) fn program(command: &[&str]) -> ExecStart {
    ExecStart {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        ..ExecStart::default()
    }
}
