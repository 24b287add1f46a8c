//! What is done for each call.

mod exec;
mod get;
mod put;
mod stat;

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::core::Core;
use crate::limits::CALLS;
use crate::proto::exec::exec_service_server::ExecService;
use crate::proto::exec::{ExecRequest, ExecResponse};
use crate::proto::guest::guest_service_server::GuestService;
use crate::proto::guest::{
    CopyFromGuestRequest, CopyFromGuestResponse, CopyToGuestRequest, CopyToGuestResponse,
    StatPathRequest, StatPathResponse,
};

/// All calls of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    core: Arc<Core>,
    places: Arc<Semaphore>,
}

/// The answers of one call, as they come.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Calls {
    /// None are under way yet.
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            places: Arc::new(Semaphore::new(CALLS)),
        }
    }

    /// A place for one call, until it is dropped.
    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map_err(|_| {
            Status::resource_exhausted(format!(
                "{CALLS} calls are under way on this connection, which is the most"
            ))
        })
    }

    fn run(
        &self,
        request: Request<Streaming<ExecRequest>>,
    ) -> Result<Response<Answers<ExecResponse>>, Status> {
        let place = self.place()?;
        let answers = exec::Answers::new(Arc::clone(&self.core), request.into_inner(), place);
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl ExecService for Calls {
    type ExecStream = Answers<ExecResponse>;

    async fn exec(
        &self,
        request: Request<Streaming<ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        self.run(request)
    }
}

#[tonic::async_trait]
impl GuestService for Calls {
    type ExecStream = Answers<ExecResponse>;
    type CopyFromGuestStream = Answers<CopyFromGuestResponse>;

    async fn exec(
        &self,
        request: Request<Streaming<ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        self.run(request)
    }

    async fn copy_to_guest(
        &self,
        request: Request<Streaming<CopyToGuestRequest>>,
    ) -> Result<Response<CopyToGuestResponse>, Status> {
        let _place = self.place()?;
        put::put(&self.core, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn copy_from_guest(
        &self,
        request: Request<CopyFromGuestRequest>,
    ) -> Result<Response<Self::CopyFromGuestStream>, Status> {
        let place = self.place()?;
        let answers = get::Answers::new(&self.core, request.into_inner().path, place).await?;
        Ok(Response::new(Box::pin(answers)))
    }

    async fn stat_path(
        &self,
        request: Request<StatPathRequest>,
    ) -> Result<Response<StatPathResponse>, Status> {
        let _place = self.place()?;
        let told = stat::stat(&self.core, request.into_inner()).await?;
        Ok(Response::new(told))
    }
}
