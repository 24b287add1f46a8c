//! `StatPath`: what stands at a path, as `stat` tells it.

use tonic::Status;
use vmrepl_wire::copying::{Kind, Stat};
use vmrepl_wire::files::FilesOp;

use crate::core::{Core, CoreError, Said};
use crate::proto::guest::{StatPathRequest, StatPathResponse};

/// What the agent refuses is told in the response, the rest as a status.
pub(super) async fn stat(
    core: &Core,
    request: StatPathRequest,
) -> Result<StatPathResponse, Status> {
    let op = FilesOp::Stat {
        path: request.path,
        follow: request.follow_links,
    };
    let (_sender, mut receiver) = core.open(op).await?;
    let stat = match receiver.next().await {
        Ok(Said::Reply(reply)) => reply.stat,
        Ok(Said::Bytes(tag, _)) => return Err(CoreError::OutOfTurn(tag).into()),
        Ok(Said::End) => None,
        Err(CoreError::Refused(error)) => {
            return Ok(StatPathResponse {
                error,
                ..StatPathResponse::default()
            });
        }
        Err(error) => return Err(error.into()),
    };
    stat.map(told)
        .ok_or_else(|| Status::internal("the agent's answer tells of no path"))
}

fn told(stat: Stat) -> StatPathResponse {
    StatPathResponse {
        exists: stat.kind != Kind::Missing,
        is_dir: stat.kind == Kind::Folder,
        is_file: stat.kind == Kind::File,
        is_symlink: stat.kind == Kind::Link,
        link_target: stat.target.unwrap_or_default(),
        mode: stat.mode.unwrap_or_default(),
        size: i64::try_from(stat.size.unwrap_or_default()).unwrap_or(i64::MAX),
        error: String::new(),
    }
}
