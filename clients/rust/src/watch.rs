//! Following one job over as many streams as it takes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::Streaming;

use crate::core::{Core, Timeouts};
use crate::error::{Error, Kind};
use crate::is_terminal;
use crate::retry::Reconnecting;
use crate::v1::preview_job_service_client::PreviewJobServiceClient;
use crate::v1::{PreviewJob, WatchPreviewJobRequest, WatchPreviewJobResponse};

/// After the terminal state nothing but the end of the stream can come.
const END_OF_STREAM_WITHIN: Duration = Duration::from_secs(1);

/// One job, followed until its terminal state: the job as it is, then every change.
///
/// A stream ends for reasons that have nothing to do with the job: the gateway is stopping, the stream has been open for
/// long, the connection broke. Since every stream begins with the present state, another is opened and nothing is lost.
/// Slow readers get the latest state, not a backlog. Dropping this ends the stream at the gateway.
pub struct Watch {
    core: Arc<Core>,
    request: WatchPreviewJobRequest,
    deadline: Instant,
    idle: Duration,
    reconnecting: Reconnecting,
    stream: Option<Streaming<WatchPreviewJobResponse>>,
    first: Option<PreviewJob>,
    last: Option<PreviewJob>,
    ended: bool,
}

impl Watch {
    pub(crate) fn new(core: Arc<Core>, request: WatchPreviewJobRequest, timeouts: &Timeouts) -> Self {
        let deadline = Instant::now() + timeouts.watch;
        Self {
            core,
            request,
            deadline,
            idle: timeouts.idle,
            reconnecting: Reconnecting::new(deadline, timeouts.unreachable),
            stream: None,
            first: None,
            last: None,
            ended: false,
        }
    }

    /// The same watch, which yields `created` before it asks the gateway, and after that only what differs.
    pub(crate) fn starting_with(mut self, created: PreviewJob) -> Self {
        self.last = Some(created.clone());
        self.first = Some(created);
        self
    }

    /// The job after its next change; none after the terminal state. It may be cancelled (in `tokio::select!`, for
    /// example) and called again; nothing is lost.
    ///
    /// # Errors
    ///
    /// `NotFound`: there is no such job in the bucket. `Unavailable`: no gateway answers, or none any more for longer
    /// than `unreachable_timeout`. `DeadlineExceeded`: the time is up. After an error there is nothing more.
    pub async fn next(&mut self) -> Result<Option<PreviewJob>, Error> {
        if let Some(created) = self.first.take() {
            return Ok(Some(created));
        }
        while !self.ended {
            match self.message().await {
                Ok(Some(message)) => {
                    self.reconnecting.heard();
                    if message.job.is_some() && message.job != self.last {
                        self.last.clone_from(&message.job);
                        return Ok(message.job);
                    }
                }
                Ok(None) => self.ended = true,
                Err(error) => self.go_on_after(error).await?,
            }
        }
        self.stream = None;
        Ok(None)
    }

    /// One message, of another stream when there is none.
    async fn message(&mut self) -> Result<Option<WatchPreviewJobResponse>, Error> {
        let idle = if self.is_over() { END_OF_STREAM_WITHIN } else { self.idle };
        let patience = Instant::now() + idle;
        let until = patience.min(self.deadline);
        if self.stream.is_none() {
            let open = |channel, request| async move {
                PreviewJobServiceClient::new(channel).watch_preview_job(request).await
            };
            self.stream = Some(self.core.attempt(self.deadline, &self.request, &open, Error::of_read).await?);
        }
        let Some(stream) = &mut self.stream else { unreachable!("it was opened") };
        match timeout_at(until, stream.message()).await {
            Ok(message) => message.map_err(Error::of_read),
            Err(_) if until < patience => Err(Error::deadline_passed()),
            Err(_) => Err(Error::unavailable(format!("nothing came from the gateway for {idle:?}"))),
        }
    }

    async fn go_on_after(&mut self, error: Error) -> Result<(), Error> {
        self.stream = None;
        if self.is_over() && error.kind() == Kind::Unavailable {
            self.ended = true;
            return Ok(());
        }
        let outcome = self.reconnecting.pause_after(error).await;
        self.ended = outcome.is_err();
        outcome
    }

    fn is_over(&self) -> bool {
        self.last.as_ref().is_some_and(|job| is_terminal(job.state()))
    }
}
