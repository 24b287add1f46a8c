//! HTTP/2 on the connection, and which service takes a call.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;

use crate::calls::Calls;
use crate::limits::{
    CONNECTION_WINDOW_BYTES, HEADERS_BYTES, MESSAGE_BYTES, SEND_BUFFER_BYTES, STREAM_WINDOW_BYTES,
    STREAMS,
};
use crate::proto::exec::exec_service_server::ExecServiceServer;
use crate::proto::guest::guest_service_server::GuestServiceServer;

type Exec = ExecServiceServer<Calls>;
type Guest = GuestServiceServer<Calls>;

/// Serves the connection until its client has closed it, or says what is no HTTP/2: neither is an error here.
pub(crate) async fn serve(connection: OwnedFd, calls: &Calls) -> io::Result<()> {
    // Whatever its family: only what every stream socket can do is asked of it, to read, to write and to shut down.
    let connection = UnixStream::from_std(connection.into())?;
    let exec = Exec::new(calls.clone()).max_decoding_message_size(MESSAGE_BYTES);
    let guest = Guest::new(calls.clone()).max_decoding_message_size(MESSAGE_BYTES);
    let service = service_fn(|request| route(request, exec.clone(), guest.clone()));
    let served = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADERS_BYTES)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(connection), service)
        .await;
    // A peer that hangs up is nobody's error.
    served.or(Ok(()))
}

async fn route(
    request: Request<Incoming>,
    mut exec: Exec,
    mut guest: Guest,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path();
    let service = path
        .strip_prefix('/')
        .and_then(|path| path.rsplit_once('/'))
        .map_or("", |(service, _)| service);
    if service == Exec::NAME {
        exec.call(request).await
    } else if service == Guest::NAME {
        guest.call(request).await
    } else {
        let text = format!(
            "{path} is not served here, {} and {} are",
            Exec::NAME,
            Guest::NAME
        );
        Ok(Status::unimplemented(text).into_http())
    }
}
