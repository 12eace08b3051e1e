//! The client: one method for each thing that the gateway does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::builder::Builder;
use crate::core::{Core, Timeouts};
use crate::error::Error;
use crate::is_terminal;
use crate::retry::Reconnecting;
use crate::v1::preview_job_service_client::PreviewJobServiceClient;
use crate::v1::preview_queue_service_client::PreviewQueueServiceClient;
use crate::v1::usage_service_client::UsageServiceClient;
use crate::v1::{
    BatchGetPreviewJobsRequest, BatchGetPreviewJobsResponse, CreatePreviewJobRequest, GetPreviewJobRequest,
    GetUsageRequest, ListPreviewJobsRequest, ListPreviewJobsResponse, ListPreviewQueuesRequest, PreviewJob,
    PreviewQueue, Usage, WaitPreviewJobRequest, WatchPreviewJobRequest,
};
use crate::watch::Watch;

/// The gateway waits no longer in one call.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);
/// The gateway answers when its waiting time is over; this much longer the client listens for that answer.
const WAIT_MARGIN: Duration = Duration::from_secs(10);

/// Talks to one docpreview gateway (all its replicas).
///
/// Make one and share it: clones share its connections, and it balances over all addresses of its target. Every call
/// has a deadline and fails with [`Error`]. Reads are repeated up to three times while gateway or cloud are
/// unavailable, creates only when they carry a `request_id`. Dropping the future of a call cancels it.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
    timeouts: Timeouts,
}

impl Client {
    /// Settings of a new client for the gateway at `target`: `host:port` or `dns:///host:port`.
    pub fn builder(target: impl Into<String>) -> Builder {
        Builder::new(target.into())
    }

    pub(crate) fn new(core: Core) -> Self {
        Self { timeouts: core.timeouts, core: Arc::new(core) }
    }

    /// The same client, whose calls, waits and watches may take so long each: `client.within(limit).get(request)`.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        let timeouts = Timeouts { unary: limit, wait: limit, watch: limit, ..self.timeouts };
        Self { core: Arc::clone(&self.core), timeouts }
    }

    /// Submits a job and returns it. Every create is billed, so it is made once; with a `request_id` up to five times,
    /// within the deadline, until its outcome is known.
    ///
    /// # Errors
    ///
    /// `OutcomeUnknown`: the job may or may not exist, also when the deadline passes or the connection breaks before
    /// the gateway has answered; with a `request_id` creating again is safe. `Unavailable`: nothing was accepted;
    /// creating again is safe.
    pub async fn create(&self, request: CreatePreviewJobRequest) -> Result<PreviewJob, Error> {
        let repeat = !request.request_id.is_empty();
        self.core
            .create(self.deadline(), &request, repeat, |channel, request| async move {
                PreviewJobServiceClient::new(channel).create_preview_job(request).await
            })
            .await
    }

    /// Returns one job.
    ///
    /// # Errors
    ///
    /// `NotFound`: there is no such job in the bucket, or it is older than a month.
    pub async fn get(&self, request: GetPreviewJobRequest) -> Result<PreviewJob, Error> {
        self.core
            .read(self.deadline(), &request, |channel, request| async move {
                PreviewJobServiceClient::new(channel).get_preview_job(request).await
            })
            .await
    }

    /// Returns 1 to 100 jobs in the order asked, and the ids that do not exist.
    ///
    /// # Errors
    ///
    /// Those of every read.
    pub async fn batch_get(&self, request: BatchGetPreviewJobsRequest) -> Result<BatchGetPreviewJobsResponse, Error> {
        self.core
            .read(self.deadline(), &request, |channel, request| async move {
                PreviewJobServiceClient::new(channel).batch_get_preview_jobs(request).await
            })
            .await
    }

    /// Returns one page of the bucket's jobs; `next_page_token` of the answer leads to the next.
    ///
    /// # Errors
    ///
    /// Those of every read.
    pub async fn list_page(&self, request: ListPreviewJobsRequest) -> Result<ListPreviewJobsResponse, Error> {
        self.core
            .read(self.deadline(), &request, |channel, request| async move {
                PreviewJobServiceClient::new(channel).list_preview_jobs(request).await
            })
            .await
    }

    /// All jobs from the page of `request` on, page by page as they are needed; each page has a deadline of its own.
    #[must_use]
    pub fn list(&self, request: ListPreviewJobsRequest) -> Jobs {
        Jobs { client: self.clone(), next_page: Some(request), page: VecDeque::new() }
    }

    /// Returns all queues of the bucket from the page of `request` on; each page has a deadline of its own.
    ///
    /// # Errors
    ///
    /// Those of every read.
    pub async fn list_queues(&self, mut request: ListPreviewQueuesRequest) -> Result<Vec<PreviewQueue>, Error> {
        let mut queues = Vec::new();
        loop {
            let page = self
                .core
                .read(self.deadline(), &request, |channel, request| async move {
                    PreviewQueueServiceClient::new(channel).list_preview_queues(request).await
                })
                .await?;
            queues.extend(page.queues);
            if page.next_page_token.is_empty() {
                return Ok(queues);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// What the caller has used up: the pages of this day and month (UTC), and what is left of its budgets.
    ///
    /// # Errors
    ///
    /// Those of every read.
    pub async fn usage(&self) -> Result<Usage, Error> {
        self.core
            .read(self.deadline(), &GetUsageRequest {}, |channel, request| async move {
                UsageServiceClient::new(channel).get_usage(request).await
            })
            .await
    }

    /// Returns the job when its state is terminal, or as it is when the request's `timeout` has passed: look at its
    /// state. That timeout may be of any length here; by default it is the client's.
    ///
    /// Times when the gateway asks to come back later (it is stopping, or the cloud is away) are waited out, up to the
    /// client's `unreachable_timeout`. An answer that is late is awaited 10 seconds longer.
    ///
    /// # Errors
    ///
    /// `Unavailable`: no gateway answers, or none any more. `DeadlineExceeded`: the time is up and the gateway has not
    /// said how the job is. `InvalidRequest`: the timeout is negative.
    pub async fn wait(&self, mut request: WaitPreviewJobRequest) -> Result<PreviewJob, Error> {
        let length = match request.timeout.take() {
            Some(asked) => Duration::try_from(asked).map_err(|_| Error::invalid("timeout is negative"))?,
            None => self.timeouts.wait,
        };
        let deadline = Instant::now() + length;
        let mut reconnecting = Reconnecting::new(deadline, self.timeouts.unreachable);
        loop {
            match self.wait_once(&mut request, deadline).await {
                Ok(job) if is_terminal(job.state()) || deadline <= Instant::now() => return Ok(job),
                Ok(_) => reconnecting.heard(),
                Err(error) => reconnecting.pause_after(error).await?,
            }
        }
    }

    /// Follows a job: as it is, then after every change, to its terminal state. Nothing is sent before the first
    /// [`Watch::next`]; the time counts from now, over all the streams that it takes.
    #[must_use]
    pub fn watch(&self, request: WatchPreviewJobRequest) -> Watch {
        Watch::new(Arc::clone(&self.core), request, &self.timeouts)
    }

    /// Creates a job as [`Client::create`] does, and follows it as [`Client::watch`] does. With `page_url_ttl` its pages
    /// come with addresses that are valid so long, 1 second to 1 hour.
    ///
    /// # Errors
    ///
    /// Those of [`Client::create`].
    pub async fn create_and_watch(
        &self,
        request: CreatePreviewJobRequest,
        page_url_ttl: Option<Duration>,
    ) -> Result<Watch, Error> {
        let page_url_ttl = page_url_ttl.map(wire).transpose()?;
        let bucket = request.bucket.clone();
        let created = self.create(request).await?;
        let watch = WatchPreviewJobRequest { bucket, job_id: created.job_id.clone(), page_url_ttl };
        Ok(self.watch(watch).starting_with(created))
    }

    async fn wait_once(&self, request: &mut WaitPreviewJobRequest, deadline: Instant) -> Result<PreviewJob, Error> {
        let part = deadline.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
        request.timeout = Some(wire(part)?);
        self.core
            .read(Instant::now() + part + WAIT_MARGIN, request, |channel, request| async move {
                PreviewJobServiceClient::new(channel).wait_preview_job(request).await
            })
            .await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeouts.unary
    }
}

/// The jobs of a list, page by page.
pub struct Jobs {
    client: Client,
    next_page: Option<ListPreviewJobsRequest>,
    page: VecDeque<PreviewJob>,
}

impl Jobs {
    /// The next job; none after the last.
    ///
    /// # Errors
    ///
    /// Those of [`Client::list_page`]. Called again, it asks for the same page again.
    pub async fn next(&mut self) -> Result<Option<PreviewJob>, Error> {
        loop {
            if let Some(job) = self.page.pop_front() {
                return Ok(Some(job));
            }
            let Some(request) = &mut self.next_page else { return Ok(None) };
            let page = self.client.list_page(request.clone()).await?;
            self.page = page.jobs.into();
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                self.next_page = None;
            }
        }
    }
}

/// A new id for a create: a random UUID.
#[must_use]
pub fn new_request_id() -> String {
    const VERSION_4: u128 = 0x4 << 76;
    const VARIANT: u128 = 0x8 << 60;
    let random = rand::random::<u128>() & !(0xf << 76) & !(0xc << 60) | VERSION_4 | VARIANT;
    let hex = format!("{random:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn wire(length: Duration) -> Result<prost_types::Duration, Error> {
    length.try_into().map_err(|_| Error::invalid("the time is too long"))
}

#[cfg(test)]
mod tests {
    use super::new_request_id;

    #[test]
    fn request_ids_are_version_4() {
        let id = new_request_id();
        assert_eq!(id.len(), 36, "{id}");
        assert_eq!(&id[14..15], "4", "{id}");
        assert!("89ab".contains(&id[19..20]), "{id}");
        assert_ne!(id, new_request_id());
    }
}
