//! Following jobs over as many streams as it takes.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{Stream, select_all, unfold};
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::core::{Caller, Way};
use crate::error::{Error, Kind};
use crate::is_terminal;
use crate::pool::Lease;
use crate::retry::Reconnecting;
use crate::v1::preview_job_service_client::PreviewJobServiceClient;
use crate::v1::watch_preview_jobs_response::{Event, JobError};
use crate::v1::{
    PreviewJob, WatchPreviewJobRequest, WatchPreviewJobResponse, WatchPreviewJobsRequest, WatchPreviewJobsResponse,
};

/// After the terminal state nothing but the end of the stream can come.
const END_OF_STREAM_WITHIN: Duration = Duration::from_secs(1);
/// The gateway follows no more in one stream.
const JOBS_OF_A_STREAM: usize = 1000;

/// What happened to one of many jobs.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // nearly all of them are jobs
pub enum JobEvent {
    /// The job as it is now. When its state is terminal nothing more comes of it.
    Job(PreviewJob),
    /// Why this job is not followed any more: there is none with this id, for example. Nothing more comes of it.
    Error(JobError),
}

/// One job, from the present state on.
pub(crate) fn one(
    caller: Caller,
    request: WatchPreviewJobRequest,
    created: Option<PreviewJob>,
) -> impl Stream<Item = Result<PreviewJob, Error>> + Send {
    let first = futures_util::stream::iter(created.clone().map(Ok));
    first.chain(events(Following::new(caller, One { request, last: created })))
}

/// Many jobs, in as many streams as they take.
pub(crate) fn many(
    caller: &Caller,
    request: WatchPreviewJobsRequest,
) -> impl Stream<Item = Result<JobEvent, Error>> + Send + use<> {
    let mut ids = request.job_ids;
    ids.sort_unstable();
    ids.dedup();
    let mut parts: Vec<_> = ids.chunks(JOBS_OF_A_STREAM).collect();
    if parts.is_empty() {
        parts.push(&[]); // the gateway says what is wrong with that
    }
    select_all(parts.into_iter().map(|part| {
        let open = part.iter().map(|id| (id.clone(), None)).collect();
        let many = Many { bucket: request.bucket.clone(), page_url_ttl: request.page_url_ttl, open };
        events(Following::new(caller.clone(), many)).boxed()
    }))
}

fn events<F: Followed>(following: Following<F>) -> impl Stream<Item = Result<F::Event, Error>> + Send {
    unfold(following, |mut following| async move {
        let next = following.next().await.transpose()?;
        Some((next, following))
    })
}

/// What is followed, and what is known of it.
trait Followed: Send + 'static {
    type Request: Clone + Send + Sync;
    type Message: Send + 'static;
    type Event: Send;

    /// What a new stream is asked for.
    fn request(&self) -> Self::Request;
    fn open(
        channel: Channel,
        request: Request<Self::Request>,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Message>>, Status>> + Send;
    /// What a message tells that was not known.
    fn take(&mut self, message: Self::Message) -> Option<Self::Event>;
    /// Whether nothing more can happen.
    fn is_over(&self) -> bool;
}

struct One {
    request: WatchPreviewJobRequest,
    last: Option<PreviewJob>,
}

impl Followed for One {
    type Request = WatchPreviewJobRequest;
    type Message = WatchPreviewJobResponse;
    type Event = PreviewJob;

    fn request(&self) -> Self::Request {
        self.request.clone()
    }

    async fn open(
        channel: Channel,
        request: Request<Self::Request>,
    ) -> Result<Response<Streaming<Self::Message>>, Status> {
        PreviewJobServiceClient::new(channel).watch_preview_job(request).await
    }

    fn take(&mut self, message: Self::Message) -> Option<PreviewJob> {
        let job = message.job.filter(|job| self.last.as_ref() != Some(job))?;
        self.last = Some(job.clone());
        Some(job)
    }

    fn is_over(&self) -> bool {
        self.last.as_ref().is_some_and(|job| is_terminal(job.state()))
    }
}

struct Many {
    bucket: String,
    page_url_ttl: Option<prost_types::Duration>,
    /// The ids whose end has not come, with what came last of each.
    open: BTreeMap<String, Option<PreviewJob>>,
}

impl Followed for Many {
    type Request = WatchPreviewJobsRequest;
    type Message = WatchPreviewJobsResponse;
    type Event = JobEvent;

    fn request(&self) -> Self::Request {
        let job_ids = self.open.keys().cloned().collect();
        WatchPreviewJobsRequest { bucket: self.bucket.clone(), job_ids, page_url_ttl: self.page_url_ttl }
    }

    async fn open(
        channel: Channel,
        request: Request<Self::Request>,
    ) -> Result<Response<Streaming<Self::Message>>, Status> {
        PreviewJobServiceClient::new(channel).watch_preview_jobs(request).await
    }

    fn take(&mut self, message: Self::Message) -> Option<JobEvent> {
        match message.event? {
            Event::Job(job) => {
                let last = self.open.get_mut(&job.job_id).filter(|last| last.as_ref() != Some(&job))?;
                if is_terminal(job.state()) {
                    self.open.remove(&job.job_id);
                } else {
                    *last = Some(job.clone());
                }
                Some(JobEvent::Job(job))
            }
            Event::Error(error) => self.open.remove(&error.job_id).map(|_| JobEvent::Error(error)),
            Event::Heartbeat(_) => None,
        }
    }

    fn is_over(&self) -> bool {
        self.open.is_empty()
    }
}

/// Opens stream after stream until the end.
struct Following<F: Followed> {
    caller: Caller,
    followed: F,
    deadline: Instant,
    reconnecting: Reconnecting,
    stream: Option<(Streaming<F::Message>, Lease)>,
    ended: bool,
}

impl<F: Followed> Following<F> {
    fn new(caller: Caller, followed: F) -> Self {
        let timeouts = &caller.options.timeouts;
        let deadline = Instant::now() + timeouts.watch;
        let reconnecting = Reconnecting::new(deadline, timeouts.unreachable);
        Self { caller, followed, deadline, reconnecting, stream: None, ended: false }
    }

    async fn next(&mut self) -> Result<Option<F::Event>, Error> {
        while !self.ended {
            match self.message().await {
                Ok(Some(message)) => {
                    self.reconnecting.heard();
                    if let Some(event) = self.followed.take(message) {
                        return Ok(Some(event));
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
    async fn message(&mut self) -> Result<Option<F::Message>, Error> {
        let idle = if self.followed.is_over() { END_OF_STREAM_WITHIN } else { self.caller.options.timeouts.idle };
        let patience = Instant::now() + idle;
        let until = patience.min(self.deadline);
        let (stream, _) = match &mut self.stream {
            Some(open) => open,
            none => {
                let request = self.followed.request();
                none.insert(self.caller.attempt(Way::Staying, self.deadline, &request, &F::open, Error::of_read).await?)
            }
        };
        match timeout_at(until, stream.message()).await {
            Ok(message) => message.map_err(Error::of_read),
            Err(_) if until < patience => Err(Error::deadline_passed()),
            Err(_) => Err(Error::unavailable(format!("nothing came from the gateway for {idle:?}"))),
        }
    }

    async fn go_on_after(&mut self, error: Error) -> Result<(), Error> {
        self.stream = None;
        if self.followed.is_over() && error.kind() == Kind::Unavailable {
            self.ended = true;
            return Ok(());
        }
        let outcome = self.reconnecting.pause_after(error).await;
        self.ended = outcome.is_err();
        outcome
    }
}
