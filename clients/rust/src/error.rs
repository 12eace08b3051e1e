//! What can go wrong with a call, divided by what a caller can do about it.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::StatusExt;

use crate::v1::{ErrorReason, PreviewJob, Retry};

const DOMAIN: &str = "docpreview";

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Change the request: [`Error::field_violations`] names every bad field.
    InvalidRequest,
    /// There is no such job, document or queue (any more).
    NotFound,
    /// Bring a valid token or client certificate; or the client's own token source failed.
    Unauthenticated,
    /// Ask the operators of the gateway for the permission.
    PermissionDenied,
    /// Put the bucket, the cloud account, the document or the local file in order, then call again.
    FailedPrecondition,
    /// Too many calls, or a quota is used up; nothing was accepted. Call again later: [`Error::quota_violations`]
    /// names the limit.
    Throttled,
    /// The pages of the day or month (UTC) are used up, or too few are left for the job. With the reason
    /// `PAGE_BUDGET_TOO_SMALL` it never fits. Nothing was accepted.
    BudgetExhausted,
    /// Gateway or cloud cannot be reached, or the gateway is stopping. A create was not accepted. Call again later.
    Unavailable,
    /// The deadline of the call has passed. Call again later.
    DeadlineExceeded,
    /// A create was sent and its answer is lost, or has not come yet: the job may or may not exist. Repeat it with the same
    /// `request_id` ([`Error::create_request_id`]); where it had none list the jobs first. With the reason `CREATE_OUTCOME_AMBIGUOUS` repeating does not help: only a
    /// new `request_id` makes a new job.
    OutcomeUnknown,
    /// A preview made a job, which is billed, and not all of its pages are here: [`Error::job`] is the job, the source of the
    /// error why. Go on with [`crate::Client::wait`] or [`crate::Client::get`], and then `download`.
    PreviewUnfinished,
    /// Report it with [`Error::request_id`] to the operators of the gateway.
    InternalError,
}

/// A bad field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field, such as `options.end_page`.
    pub field: String,
    /// What to do about it.
    pub description: String,
}

/// A limit that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaViolation {
    /// Whose limit, such as `caller:reports`.
    pub subject: String,
    /// Which limit.
    pub description: String,
}

/// A call that failed. Every method of [`crate::Client`] fails with this.
pub struct Error(Box<Facts>);

struct Facts {
    kind: Kind,
    code: Code,
    message: String,
    reason: String,
    retry: Retry,
    retry_delay: Option<Duration>,
    field_violations: Vec<FieldViolation>,
    quota_violations: Vec<QuotaViolation>,
    metadata: HashMap<String, String>,
    request_id: String,
    create_request_id: String,
    job: Option<PreviewJob>,
    /// Whether the gateway said that waiting is useless.
    final_answer: bool,
    /// Whether the connection was closed before the call was sent over it.
    undelivered: bool,
    source: Option<Cause>,
}

pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

impl Error {
    /// What to do about it.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The gRPC status code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The gateway's sentence, or that of this side when no gateway answered.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Name of a [`crate::v1::ErrorReason`] without `ERROR_REASON_`, for example `JOB_NOT_FOUND`. Empty when the error
    /// does not come from the gateway itself: no connection, a local deadline, a proxy.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// What a program does with it: repeat the call now (after [`Error::retry_delay`]), later, or never. It is what the
    /// contract says of the reason; without a reason `UNAVAILABLE`, `CANCELLED` and `DEADLINE_EXCEEDED` are `Now`, all
    /// others `Never`. Never [`Retry::Unspecified`].
    ///
    /// Where it is `Now` for a create, repeat it with the `request_id` that it had: a request without one gets a new one at
    /// every call, which makes a new job.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// How long to wait before the call is repeated; none when the gateway does not say.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_delay
    }

    /// Every bad field of the request.
    pub fn field_violations(&self) -> &[FieldViolation] {
        &self.0.field_violations
    }

    /// The limits that were reached.
    pub fn quota_violations(&self) -> &[QuotaViolation] {
        &self.0.quota_violations
    }

    /// The metadata of the error's `google.rpc.ErrorInfo`, for example `upstream_request_id`.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.0.metadata
    }

    /// The gateway's id of the call. Empty when no gateway answered.
    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// The `request_id` of the create that failed, also when the client made it: with it the create can be repeated. Empty
    /// where it had none, and for other calls.
    pub fn create_request_id(&self) -> &str {
        &self.0.create_request_id
    }

    /// Of [`Kind::PreviewUnfinished`] the job that was made, as it was last seen.
    pub fn job(&self) -> Option<&PreviewJob> {
        self.0.job.as_ref()
    }

    /// Whether any call may be repeated now, after [`Error::retry_delay`] when there is one. A create that may have been
    /// accepted is never transient: code that repeats what is bills nothing twice, also without `request_id`.
    pub fn is_transient(&self) -> bool {
        self.0.retry == Retry::Now && self.0.kind != Kind::OutcomeUnknown
    }

    /// The failure of a call that changes nothing.
    pub(crate) fn of_read(status: Status) -> Self {
        Self::decoded(status, false)
    }

    /// The failure of a create; whatever leaves open whether a job was made is of the kind `OutcomeUnknown`.
    pub(crate) fn of_create(status: Status) -> Self {
        Self::decoded(status, true)
    }

    /// A failure of this side, before anything was sent.
    pub(crate) fn local(kind: Kind, code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Facts {
            kind,
            code,
            message: message.into(),
            reason: String::new(),
            retry: retry(code, ""),
            retry_delay: None,
            field_violations: Vec::new(),
            quota_violations: Vec::new(),
            metadata: HashMap::new(),
            request_id: String::new(),
            create_request_id: String::new(),
            job: None,
            final_answer: false,
            undelivered: false,
            source: None,
        }))
    }

    /// The same, because of this.
    pub(crate) fn caused_by(mut self, cause: impl Into<Cause>) -> Self {
        self.0.source = Some(cause.into());
        self
    }

    /// The same, of a create with this `request_id`.
    pub(crate) fn of_request_id(mut self, request_id: &str) -> Self {
        request_id.clone_into(&mut self.0.create_request_id);
        self
    }

    /// What ended a preview whose job had been made. It is no transient error, whatever the cause is: who repeats the whole
    /// preview would pay for a second job.
    #[cfg(feature = "files")]
    pub(crate) fn preview_unfinished(job: PreviewJob, cause: Self) -> Self {
        let message = format!(
            "job {} was made and its pages are not all here: {cause}; go on with download \
             (Client::wait or Client::get, then Client::download)",
            job.job_id
        );
        let mut error = Self::local(Kind::PreviewUnfinished, Code::FailedPrecondition, message).caused_by(cause);
        error.0.job = Some(job);
        error
    }

    /// A file or folder of this machine that cannot be read or written.
    #[cfg(feature = "files")]
    pub(crate) fn of_file(path: &std::path::Path, error: std::io::Error) -> Self {
        let message = format!("{}: {error}", path.display());
        Self::local(Kind::FailedPrecondition, Code::FailedPrecondition, message).caused_by(error)
    }

    pub(crate) fn deadline_passed() -> Self {
        Self::local(Kind::DeadlineExceeded, Code::DeadlineExceeded, "the deadline has passed")
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::local(Kind::Unavailable, Code::Unavailable, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::local(Kind::InvalidRequest, Code::InvalidArgument, message)
    }

    /// Whether the gateway said that waiting for it is useless.
    pub(crate) fn is_final(&self) -> bool {
        self.0.final_answer
    }

    /// Whether the connection was closed before the call was sent over it, as happens when it gets too old.
    pub(crate) fn is_undelivered(&self) -> bool {
        self.0.undelivered
    }

    /// Whether a gateway answered.
    pub(crate) fn is_answer(&self) -> bool {
        !self.0.reason.is_empty() || self.0.retry_delay.is_some()
    }

    fn decoded(status: Status, create: bool) -> Self {
        // Details that cannot be read are left out: half an error is better than an error about an error.
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let reason = info.map(|info| info.reason.clone()).unwrap_or_default();
        let metadata = info.map(|info| info.metadata.clone()).unwrap_or_default();
        let code = code(&status);
        let open = create && reason.is_empty() && leaves_outcome_open(&status, code);
        let header = |name| status.metadata().get(name).and_then(|value| value.to_str().ok());
        Self(Box::new(Facts {
            kind: if open { Kind::OutcomeUnknown } else { kind(code, &reason) },
            code,
            message: message(&status, code),
            retry: retry(code, &reason),
            reason,
            retry_delay: details.retry_info().and_then(|retry| retry.retry_delay),
            field_violations: details.bad_request().map(field_violations).unwrap_or_default(),
            quota_violations: details.quota_failure().map(quota_violations).unwrap_or_default(),
            request_id: metadata
                .get("request_id")
                .map(String::as_str)
                .or_else(|| header("x-request-id"))
                .unwrap_or_default()
                .to_owned(),
            metadata,
            create_request_id: String::new(),
            job: None,
            final_answer: header("grpc-retry-pushback-ms").is_some_and(|value| value.parse::<u64>().is_err()),
            undelivered: is_undelivered(&status),
            source: Some(status.into()),
        }))
    }
}

impl fmt::Display for Error {
    /// Everything that helps to act, on one line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &self.0;
        match facts.reason.as_str() {
            // What it is about is the job, not a status.
            "" if facts.kind == Kind::PreviewUnfinished => write!(formatter, "{}", facts.message)?,
            "" => write!(formatter, "{:?}: {}", facts.code, facts.message)?,
            reason => write!(formatter, "{reason}: {}", facts.message)?,
        }
        for bad in &facts.field_violations {
            write!(formatter, "; {}: {}", bad.field, bad.description)?;
        }
        if !facts.request_id.is_empty() {
            write!(formatter, "; request id {}", facts.request_id)?;
        }
        let is_repeatable = facts.kind == Kind::OutcomeUnknown && facts.reason != "CREATE_OUTCOME_AMBIGUOUS";
        if is_repeatable && !facts.create_request_id.is_empty() {
            write!(formatter, "; repeat it with the request_id {}", facts.create_request_id)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    /// The same: it is what `main` prints when it fails with this.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

fn kind(code: Code, reason: &str) -> Kind {
    match (reason, code) {
        // One in flight is a job soon: with a new id the create would make a second.
        ("CREATE_OUTCOME_UNKNOWN" | "CREATE_OUTCOME_AMBIGUOUS" | "CREATE_IN_PROGRESS", _) => Kind::OutcomeUnknown,
        ("REPLY_TOO_LARGE", _) => Kind::InvalidRequest,
        ("PAGE_BUDGET_EXHAUSTED" | "PAGE_BUDGET_TOO_SMALL", _) => Kind::BudgetExhausted,
        (_, Code::InvalidArgument | Code::OutOfRange | Code::AlreadyExists) => Kind::InvalidRequest,
        (_, Code::NotFound) => Kind::NotFound,
        (_, Code::Unauthenticated) => Kind::Unauthenticated,
        (_, Code::PermissionDenied) => Kind::PermissionDenied,
        (_, Code::FailedPrecondition) => Kind::FailedPrecondition,
        (_, Code::ResourceExhausted) => Kind::Throttled,
        // A stopping gRPC server cancels calls that it has not yet begun: https://github.com/grpc/grpc/issues/41785
        (_, Code::Unavailable | Code::Cancelled) => Kind::Unavailable,
        (_, Code::DeadlineExceeded) => Kind::DeadlineExceeded,
        _ => Kind::InternalError,
    }
}

fn retry(code: Code, reason: &str) -> Retry {
    match (reason, code) {
        ("", Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded) => Retry::Now,
        ("", _) => Retry::Never,
        (name, _) => match ErrorReason::from_str_name(&format!("ERROR_REASON_{name}")).map(ErrorReason::retry) {
            Some(known @ (Retry::Now | Retry::Later)) => known,
            // Also when the reason is newer than this client.
            _ => Retry::Never,
        },
    }
}

/// The code as other languages' gRPC would have it: what comes from the transport of this side (a status with a
/// source) is UNAVAILABLE here too, and a deadline a deadline.
fn code(status: &Status) -> Code {
    if has_cause::<TimeoutExpired>(status) {
        Code::DeadlineExceeded
    } else if status.source().is_some() {
        Code::Unavailable
    } else {
        status.code()
    }
}

/// Whether a create that failed this way, and whose failure the gateway did not name, may have been accepted.
fn leaves_outcome_open(status: &Status, code: Code) -> bool {
    let open =
        matches!(code, Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown | Code::Internal);
    open && !has_cause::<ConnectError>(status) && !is_undelivered(status)
}

/// hyper's "canceled": a request that was waiting for its connection when that closed.
fn is_undelivered(status: &Status) -> bool {
    causes(status.source()).filter_map(<dyn StdError>::downcast_ref::<hyper::Error>).any(hyper::Error::is_canceled)
}

fn has_cause<E: StdError + 'static>(status: &Status) -> bool {
    causes(status.source()).any(<dyn StdError>::is::<E>)
}

/// The gateway's sentence, or that of the innermost cause.
fn message(status: &Status, code: Code) -> String {
    match (status.source(), status.message()) {
        (Some(cause), _) => innermost(cause),
        (None, "") => format!("{code:?}"),
        (None, sentence) => sentence.to_owned(),
    }
}

/// What the innermost cause says: those around it say no more than "transport error".
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(Some(error)).last().unwrap_or(error).to_string()
}

/// An error, its cause, the cause of that, and so on.
fn causes<'a>(first: Option<&'a (dyn StdError + 'static)>) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(first, |error: &&'a (dyn StdError + 'static)| (*error).source())
}

fn field_violations(bad: &tonic_types::BadRequest) -> Vec<FieldViolation> {
    let owned = |violation: &tonic_types::FieldViolation| FieldViolation {
        field: violation.field.clone(),
        description: violation.description.clone(),
    };
    bad.field_violations.iter().map(owned).collect()
}

fn quota_violations(quota: &tonic_types::QuotaFailure) -> Vec<QuotaViolation> {
    let owned = |violation: &tonic_types::QuotaViolation| QuotaViolation {
        subject: violation.subject.clone(),
        description: violation.description.clone(),
    };
    quota.violations.iter().map(owned).collect()
}
