//! One call: a channel, metadata, a deadline, and when it is made again.

use std::error::Error as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::balancer::Balancer;
use crate::builder::{Interceptor, Token};
use crate::error::{Error, Kind};
use crate::pool::Lease;
use crate::retry::{Budget, Pauses, sleep};
use crate::v1::Retry;

const ATTEMPTS_OF_READS: u32 = 4;
const DELIVERIES: u32 = 3;
const LONGEST_PAUSE_OF_READS: Duration = Duration::from_secs(2);
const LONGEST_PAUSE_OF_CREATES: Duration = Duration::from_secs(10);

/// How long calls may take, and how patient a watch is.
#[derive(Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) unary: Duration,
    pub(crate) wait: Duration,
    pub(crate) watch: Duration,
    pub(crate) idle: Duration,
    pub(crate) unreachable: Duration,
}

/// What may differ from call to call.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) timeouts: Timeouts,
    pub(crate) no_cache: bool,
    pub(crate) create_once: bool,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) on_reply: Option<OnReply>,
}

type Metadata = Arc<dyn Fn(&mut MetadataMap) + Send + Sync>;
type OnReply = Arc<dyn Fn(&MetadataMap) + Send + Sync>;

/// What all clones of a client share.
pub(crate) struct Core {
    pub(crate) balancer: Balancer,
    pub(crate) budget: Budget,
    pub(crate) token: Option<Token>,
    pub(crate) interceptor: Option<Interceptor>,
    #[cfg(feature = "files")]
    pub(crate) http: std::sync::OnceLock<crate::files::Http>,
}

/// Which connections a call travels on.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    Usual,
    /// Those for calls that stay open.
    Staying,
}

/// Makes calls.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) core: Arc<Core>,
    pub(crate) options: Options,
}

impl Caller {
    /// A call that changes nothing: up to four attempts, as long as gateway or cloud are unavailable.
    pub(crate) async fn read<Q, R, F, A>(&self, way: Way, deadline: Instant, message: &Q, call: F) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let budget = &self.core.budget;
        let mut pauses = Pauses::up_to(LONGEST_PAUSE_OF_READS);
        for attempt in 1.. {
            let error = match self.attempt(way, deadline, message, &call, Error::of_read).await {
                Ok((reply, _)) => {
                    budget.succeeded();
                    return Ok(reply);
                }
                Err(error) if error.kind() == Kind::Unavailable => error,
                Err(error) => return Err(error),
            };
            let pause = pauses.next(error.retry_delay());
            let allowed = budget.failed() && attempt < ATTEMPTS_OF_READS && !error.is_final();
            if !allowed || Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause, deadline).await?;
        }
        unreachable!("the last attempt returns")
    }

    /// A create. With `repeat` until the deadline, as long as its failures are to be repeated now and never earlier than
    /// the gateway asks for: its `request_id` makes all attempts one job.
    pub(crate) async fn create<Q, R, F, A>(
        &self,
        deadline: Instant,
        message: &Q,
        repeat: bool,
        call: F,
    ) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let mut pauses = Pauses::up_to(LONGEST_PAUSE_OF_CREATES);
        let mut unknown = None;
        loop {
            let error = match self.attempt(Way::Usual, deadline, message, &call, Error::of_create).await {
                Ok((reply, _)) => return Ok(reply),
                Err(error) => error,
            };
            if !repeat || error.retry() != Retry::Now {
                return Err(error);
            }
            let pause = pauses.next(error.retry_delay());
            if Instant::now() + pause >= deadline {
                return Err(unknown.unwrap_or(error));
            }
            if error.kind() == Kind::OutcomeUnknown {
                unknown = Some(error);
            }
            sleep(pause, deadline).await?;
        }
    }

    /// One attempt. What was not sent because its connection closed just then is sent over the next one, as gRPC does.
    /// A stream's place on its connection comes with it.
    pub(crate) async fn attempt<Q, R, F, A>(
        &self,
        way: Way,
        deadline: Instant,
        message: &Q,
        call: &F,
        decoded: fn(Status) -> Error,
    ) -> Result<(R, Lease), Error>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        for _ in 1..DELIVERIES {
            match self.delivery(way, deadline, message, call, decoded).await {
                Err(error) if error.is_undelivered() => {}
                outcome => return outcome,
            }
        }
        self.delivery(way, deadline, message, call, decoded).await
    }

    async fn delivery<Q, R, F, A>(
        &self,
        way: Way,
        deadline: Instant,
        message: &Q,
        call: &F,
        decoded: fn(Status) -> Error,
    ) -> Result<(R, Lease), Error>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        // Before the connection: a caller without a token need not wait for one.
        let mut request = self.request(message.clone())?;
        let lease = match timeout_at(deadline, self.core.balancer.channel(way)).await {
            Ok(picked) => picked?,
            Err(_) => return Err(Error::deadline_passed()),
        };
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        match timeout_at(deadline, call(lease.channel.clone(), request)).await {
            Ok(Ok(reply)) => {
                self.tell(reply.metadata());
                Ok((reply.into_inner(), lease))
            }
            Ok(Err(status)) => {
                if status.source().is_none() {
                    self.tell(status.metadata());
                }
                Err(decoded(status))
            }
            Err(_) => Err(decoded(Status::deadline_exceeded("the deadline has passed"))),
        }
    }

    fn tell(&self, metadata: &MetadataMap) {
        if let Some(on_reply) = &self.options.on_reply {
            on_reply(metadata);
        }
    }

    /// The message with everything that goes with the next call.
    fn request<Q>(&self, message: Q) -> Result<Request<Q>, Error> {
        let mut request = Request::new(());
        if self.options.no_cache {
            request.metadata_mut().insert("cache-control", MetadataValue::from_static("no-cache"));
        }
        if let Some(change) = &self.options.metadata {
            change(request.metadata_mut());
        }
        if let Some(token) = &self.core.token {
            let token = token().map_err(|cause| {
                let message = format!("the token source failed: {cause}");
                Error::local(Kind::Unauthenticated, Code::Unauthenticated, message).caused_by(cause)
            })?;
            let mut value = MetadataValue::try_from(format!("Bearer {token}"))
                .map_err(|_| Error::invalid("the token has characters that a token cannot have"))?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        if let Some(intercept) = &self.core.interceptor {
            request = intercept(request).map_err(Error::of_read)?;
        }
        let (metadata, extensions, ()) = request.into_parts();
        Ok(Request::from_parts(metadata, extensions, message))
    }
}
