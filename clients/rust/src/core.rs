//! One call: a channel, metadata, a deadline, and when it is made again.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::balancer::Balancer;
use crate::builder::{Metadata, Token};
use crate::error::{Error, Kind};
use crate::retry::{Budget, Pauses, sleep};

const ATTEMPTS_OF_READS: u32 = 4;
const ATTEMPTS_OF_CREATES: u32 = 5;
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

/// What all clones of a client share.
pub(crate) struct Core {
    pub(crate) balancer: Balancer,
    pub(crate) budget: Budget,
    pub(crate) token: Option<Token>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) timeouts: Timeouts,
}

impl Core {
    /// A call that changes nothing: up to four attempts, as long as gateway or cloud are unavailable.
    pub(crate) async fn read<Q, R, F, A>(&self, deadline: Instant, message: &Q, call: F) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let mut pauses = Pauses::up_to(LONGEST_PAUSE_OF_READS);
        for attempt in 1.. {
            let error = match self.attempt(deadline, message, &call, Error::of_read).await {
                Ok(reply) => {
                    self.budget.succeeded();
                    return Ok(reply);
                }
                Err(error) if error.kind() == Kind::Unavailable => error,
                Err(error) => return Err(error),
            };
            let pause = pauses.next(error.retry_delay());
            let allowed = self.budget.failed() && attempt < ATTEMPTS_OF_READS && !error.is_final();
            if !allowed || Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause, deadline).await?;
        }
        unreachable!("the last attempt returns")
    }

    /// A create. With `repeat` up to five attempts, never earlier than the gateway asks for: they carry a
    /// `request_id`, which makes them one job.
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
        for attempt in 1.. {
            let error = match self.attempt(deadline, message, &call, Error::of_create).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let pause = pauses.next(error.retry_delay());
            let repeatable = matches!(error.kind(), Kind::Unavailable | Kind::OutcomeUnknown);
            let late = attempt == ATTEMPTS_OF_CREATES || Instant::now() + pause >= deadline;
            if !repeat || !repeatable || error.is_ambiguous() {
                return Err(error);
            }
            if late {
                return Err(unknown.unwrap_or(error));
            }
            if error.kind() == Kind::OutcomeUnknown {
                unknown = Some(error);
            }
            sleep(pause, deadline).await?;
        }
        unreachable!("the last attempt returns")
    }

    /// One attempt. What was not sent because its connection closed just then is sent over the next one, as gRPC does.
    pub(crate) async fn attempt<Q, R, F, A>(
        &self,
        deadline: Instant,
        message: &Q,
        call: &F,
        decoded: fn(Status) -> Error,
    ) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        for _ in 1..DELIVERIES {
            match self.delivery(deadline, message, call, decoded).await {
                Err(error) if error.is_undelivered() => {}
                outcome => return outcome,
            }
        }
        self.delivery(deadline, message, call, decoded).await
    }

    async fn delivery<Q, R, F, A>(
        &self,
        deadline: Instant,
        message: &Q,
        call: &F,
        decoded: fn(Status) -> Error,
    ) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let channel = match timeout_at(deadline, self.balancer.channel()).await {
            Ok(picked) => picked?,
            Err(_) => return Err(Error::deadline_passed()),
        };
        let request = self.request(deadline, message.clone())?;
        match timeout_at(deadline, call(channel, request)).await {
            Ok(answer) => answer.map(Response::into_inner).map_err(decoded),
            Err(_) => Err(decoded(Status::deadline_exceeded("the deadline has passed"))),
        }
    }

    /// The message with everything that goes with the next call.
    fn request<Q>(&self, deadline: Instant, message: Q) -> Result<Request<Q>, Error> {
        let mut request = Request::new(message);
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        if let Some(change) = &self.metadata {
            change(request.metadata_mut());
        }
        if let Some(token) = &self.token {
            let mut value = MetadataValue::try_from(format!("Bearer {}", token()))
                .map_err(|_| Error::invalid("the token has characters that a token cannot have"))?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}
