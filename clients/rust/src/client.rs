//! The client: one method for each thing that the gateway does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::builder::Builder;
use crate::core::{Caller, Core, Options, Timeouts, Way};
use crate::error::Error;
use crate::is_terminal;
use crate::retry::Reconnecting;
use crate::series::{Jobs, Series, Watch, WatchMany};
use crate::v1::preview_job_service_client::PreviewJobServiceClient;
use crate::v1::preview_queue_service_client::PreviewQueueServiceClient;
use crate::v1::upload_service_client::UploadServiceClient;
use crate::v1::usage_service_client::UsageServiceClient;
use crate::v1::{
    AbortUploadRequest, BatchGetPreviewJobsRequest, BatchGetPreviewJobsResponse, CompleteUploadRequest,
    CreatePreviewJobRequest, CreateUploadRequest, GetPreviewJobRequest, GetUsageRequest, ListPreviewJobsRequest,
    ListPreviewJobsResponse, ListPreviewQueuesRequest, PreviewJob, PreviewQueue, Upload, UploadedObject, Usage,
    WaitPreviewJobRequest, WatchPreviewJobRequest, WatchPreviewJobsRequest,
};
use crate::watch;

/// The most that a page of a list has.
const PAGE_SIZE: i32 = 100;
/// The gateway waits no longer in one call.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);
/// The gateway answers when its waiting time is over; this much longer the client listens for that answer.
const WAIT_MARGIN: Duration = Duration::from_secs(10);

/// Talks to one docpreview gateway (all its replicas).
///
/// Make one and share it: clones share its connections, and it balances over all addresses of its target. Every call
/// has a deadline and fails with [`Error`]. Reads are repeated up to three times while gateway or cloud are
/// unavailable, creates until their deadline: their `request_id` keeps them one job. Any number of watches and waits
/// leaves the other calls alone: they have connections of their own. Dropping the future of a call cancels it.
///
/// What is particular to a call is a client of its own, which costs nothing:
/// `client.within(limit).no_cache().get(request)`.
#[derive(Clone)]
pub struct Client {
    pub(crate) caller: Caller,
}

impl Client {
    /// Settings of a new client for the gateway at `target`: `host:port` or `dns:///host:port`.
    pub fn builder(target: impl Into<String>) -> Builder {
        Builder::new(target.into())
    }

    pub(crate) fn new(core: Core, options: Options) -> Self {
        Self { caller: Caller { core: Arc::new(core), options } }
    }

    /// The same client, whose calls, waits and watches may take so long each.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        let timeouts = Timeouts { unary: limit, wait: limit, watch: limit, ..self.caller.options.timeouts };
        self.with(|options| options.timeouts = timeouts)
    }

    /// The same client, whose calls bypass all caches (`cache-control: no-cache`); a create makes a new job also where
    /// the policy would return an equal one.
    #[must_use]
    pub fn no_cache(&self) -> Self {
        self.with(|options| options.no_cache = true)
    }

    /// The same client, whose calls carry this metadata too.
    #[must_use]
    pub fn metadata(&self, change: impl Fn(&mut MetadataMap) + Send + Sync + 'static) -> Self {
        self.with(|options| options.metadata = Some(Arc::new(change)))
    }

    /// The same client, which hands over the metadata of each reply: `x-cache`, `x-request-id`. Of a call that is
    /// repeated, of each attempt that was answered.
    #[must_use]
    pub fn on_reply(&self, see: impl Fn(&MetadataMap) + Send + Sync + 'static) -> Self {
        self.with(|options| options.on_reply = Some(Arc::new(see)))
    }

    /// The same client, whose creates are made once and get no `request_id`. The cloud bills each of them.
    #[must_use]
    pub fn creating_once(&self) -> Self {
        self.with(|options| options.create_once = true)
    }

    fn with(&self, change: impl FnOnce(&mut Options)) -> Self {
        let mut caller = self.caller.clone();
        change(&mut caller.options);
        Self { caller }
    }

    /// Submits a job and returns it. A request without `request_id` gets one; with it the create is repeated until the
    /// deadline, on every failure that passes, and stays one job ([`Client::creating_once`] does neither).
    ///
    /// # Errors
    ///
    /// `OutcomeUnknown`: the job may or may not exist, also when the deadline passes or the connection breaks before
    /// the gateway has answered. Creating again with the same `request_id` is safe: set it ([`new_request_id`]), or
    /// take [`Error::create_request_id`]. `Unavailable`: nothing was accepted; creating again is safe.
    pub async fn create(&self, mut request: CreatePreviewJobRequest) -> Result<PreviewJob, Error> {
        let repeat = !self.caller.options.create_once;
        if repeat && request.request_id.is_empty() {
            request.request_id = new_request_id();
        }
        self.caller
            .create(self.deadline(), &request, repeat, |channel, request| async move {
                PreviewJobServiceClient::new(channel).create_preview_job(request).await
            })
            .await
            .map_err(|error| error.of_request_id(&request.request_id))
    }

    /// Returns one job.
    ///
    /// # Errors
    ///
    /// `NotFound`: there is no such job in the bucket, or it is older than a month.
    pub async fn get(&self, request: GetPreviewJobRequest) -> Result<PreviewJob, Error> {
        self.caller
            .read(Way::Usual, self.deadline(), &request, |channel, request| async move {
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
        self.caller
            .read(Way::Usual, self.deadline(), &request, |channel, request| async move {
                PreviewJobServiceClient::new(channel).batch_get_preview_jobs(request).await
            })
            .await
    }

    /// Returns one page of the bucket's jobs, of 100 unless `page_size` is set; `next_page_token` of the answer leads to
    /// the next.
    ///
    /// # Errors
    ///
    /// Those of every read.
    pub async fn list_page(&self, mut request: ListPreviewJobsRequest) -> Result<ListPreviewJobsResponse, Error> {
        request.page_size = page_size(request.page_size);
        self.caller
            .read(Way::Usual, self.deadline(), &request, |channel, request| async move {
                PreviewJobServiceClient::new(channel).list_preview_jobs(request).await
            })
            .await
    }

    /// All jobs from the page of `request` on, page by page as they are needed; each page has a deadline of its own.
    #[must_use]
    pub fn list(&self, request: ListPreviewJobsRequest) -> Jobs {
        let pages = Pages { client: self.clone(), next: Some(request), page: VecDeque::new() };
        Series::new(unfold(pages, |mut pages| async move {
            let next = pages.next().await.transpose()?;
            Some((next, pages))
        }))
    }

    /// Returns all queues of the bucket from the page of `request` on; each page has a deadline of its own.
    ///
    /// # Errors
    ///
    /// Those of every read.
    pub async fn list_queues(&self, mut request: ListPreviewQueuesRequest) -> Result<Vec<PreviewQueue>, Error> {
        request.page_size = page_size(request.page_size);
        let mut queues = Vec::new();
        loop {
            let page = self
                .caller
                .read(Way::Usual, self.deadline(), &request, |channel, request| async move {
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
        self.caller
            .read(Way::Usual, self.deadline(), &GetUsageRequest {}, |channel, request| async move {
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
            None => self.caller.options.timeouts.wait,
        };
        let deadline = Instant::now() + length;
        let mut reconnecting = Reconnecting::new(deadline, self.caller.options.timeouts.unreachable);
        loop {
            match self.wait_once(&mut request, deadline).await {
                Ok(job) if is_terminal(job.state()) || deadline <= Instant::now() => return Ok(job),
                Ok(_) => reconnecting.heard(),
                Err(error) => reconnecting.pause_after(error).await?,
            }
        }
    }

    /// Follows a job: as it is, then after every change, to its terminal state. Nothing is sent before the first item
    /// is asked for; the time counts from now, over all the streams that it takes.
    ///
    /// `NotFound`: there is no such job in the bucket. `Unavailable`: no gateway answers, or none any more for longer
    /// than `unreachable_timeout`. `DeadlineExceeded`: the time is up. After an error there is nothing more.
    #[must_use]
    pub fn watch(&self, request: WatchPreviewJobRequest) -> Watch {
        Series::new(watch::one(self.caller.clone(), request, None))
    }

    /// Follows any number of jobs of a bucket as [`Client::watch`] does, 1,000 in a stream, until each has ended. What is
    /// wrong with one job is an item of it, no error.
    #[must_use]
    pub fn watch_many(&self, request: WatchPreviewJobsRequest) -> WatchMany {
        Series::new(watch::many(&self.caller, request))
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
        Ok(self.watch_created(bucket, created, page_url_ttl))
    }

    /// Follows a job from its creation on.
    pub(crate) fn watch_created(
        &self,
        bucket: String,
        created: PreviewJob,
        page_url_ttl: Option<prost_types::Duration>,
    ) -> Watch {
        let watch = WatchPreviewJobRequest { bucket, job_id: created.job_id.clone(), page_url_ttl };
        Series::new(watch::one(self.caller.clone(), watch, Some(created)))
    }

    async fn wait_once(&self, request: &mut WaitPreviewJobRequest, deadline: Instant) -> Result<PreviewJob, Error> {
        let part = deadline.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
        request.timeout = Some(wire(part)?);
        self.caller
            .read(Way::Staying, Instant::now() + part + WAIT_MARGIN, request, |channel, request| async move {
                PreviewJobServiceClient::new(channel).wait_preview_job(request).await
            })
            .await
    }

    /// Begins an upload, for a caller that puts the parts itself (a browser, for example): [`Client::upload`] does
    /// everything.
    ///
    /// # Errors
    ///
    /// `PermissionDenied`: the policy does not let the caller upload this.
    pub async fn create_upload(&self, request: CreateUploadRequest) -> Result<Upload, Error> {
        self.caller
            .read(Way::Usual, self.deadline(), &request, |channel, request| async move {
                UploadServiceClient::new(channel).create_upload(request).await
            })
            .await
    }

    /// Makes the object of the parts that were put.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition`: a part is missing, or the object is not what was announced. `NotFound`: the upload was
    /// aborted.
    pub async fn complete_upload(&self, request: CompleteUploadRequest) -> Result<UploadedObject, Error> {
        self.caller
            .read(Way::Usual, self.deadline(), &request, |channel, request| async move {
                UploadServiceClient::new(channel).complete_upload(request).await
            })
            .await
    }

    /// Deletes the parts of an upload that will not be completed.
    ///
    /// # Errors
    ///
    /// Those of every read.
    pub async fn abort_upload(&self, request: AbortUploadRequest) -> Result<(), Error> {
        self.caller
            .read(Way::Usual, self.deadline(), &request, |channel, request| async move {
                UploadServiceClient::new(channel).abort_upload(request).await
            })
            .await
            .map(|_| ())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.caller.options.timeouts.unary
    }
}

/// A list, page by page.
struct Pages {
    client: Client,
    next: Option<ListPreviewJobsRequest>,
    page: VecDeque<PreviewJob>,
}

impl Pages {
    async fn next(&mut self) -> Result<Option<PreviewJob>, Error> {
        loop {
            if let Some(job) = self.page.pop_front() {
                return Ok(Some(job));
            }
            let Some(request) = &mut self.next else { return Ok(None) };
            let page = self.client.list_page(request.clone()).await?;
            self.page = page.jobs.into();
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                self.next = None;
            }
        }
    }
}

fn page_size(asked: i32) -> i32 {
    if asked == 0 { PAGE_SIZE } else { asked }
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

pub(crate) fn wire(length: Duration) -> Result<prost_types::Duration, Error> {
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
