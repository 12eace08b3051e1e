//! Requests to the cloud's object storage, by signed addresses. No text of an error has an address: they are secrets.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tonic::Code;

use crate::error::{Error, Kind, innermost};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Longer than this without a byte, and a transfer is dead.
pub(crate) const IDLE: Duration = Duration::from_secs(60);
const LONGEST_REFUSAL: usize = 16 * 1024;

/// Makes requests.
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Longer than this without a byte, and a body is broken.
    pub(super) idle: Duration,
    /// Bytes of a body whose length nobody tells, at most.
    pub(super) longest: u64,
}

/// Why a transfer failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// On the way.
    Broken(String),
    /// The cloud refused, with the code of its answer.
    Refused(StatusCode, String),
    /// On this side.
    Here(Error),
}

impl Http {
    pub(crate) fn new() -> Self {
        let mut roots = RootCertStore::empty();
        // Without any the first encrypted request fails, and says why.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        connector.set_nodelay(true);
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(connector);
        Self { client: Client::builder(TokioExecutor::new()).build(https), idle: IDLE, longest: 1 << 30 }
    }

    /// The cloud's answer, when it is one of success; it must begin within `limit`.
    pub(crate) async fn send(
        &self,
        method: http::Method,
        url: &str,
        headers: HeaderMap,
        content: Bytes,
        limit: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        let uri: Uri = url.parse().map_err(|_| Failure::Here(internal("the gateway's address is none")))?;
        let mut request = Request::new(Full::new(content));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
        let response = match timeout(limit, self.client.request(request)).await {
            Ok(answer) => answer.map_err(|error| Failure::Broken(innermost(&error)))?,
            Err(_) => return Err(Failure::Broken(format!("no answer within {limit:?}"))),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = timeout(IDLE, Limited::new(response.into_body(), LONGEST_REFUSAL).collect()).await;
        let text = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Err(Failure::Refused(status, code(&String::from_utf8_lossy(&text))))
    }
}

impl Failure {
    /// Whether the same request may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Refused(status, _) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Here(_) => false,
        }
    }

    /// Whether the address is refused: it has expired, most likely.
    pub(crate) fn is_of_the_address(&self) -> bool {
        matches!(self, Self::Refused(StatusCode::FORBIDDEN, _))
    }

    /// The error of a call in which this happened to `what`.
    pub(crate) fn of(self, what: &str) -> Error {
        let (kind, grpc) = match &self {
            Self::Refused(StatusCode::FORBIDDEN, _) => (Kind::PermissionDenied, Code::PermissionDenied),
            Self::Refused(StatusCode::NOT_FOUND, _) => (Kind::NotFound, Code::NotFound),
            failure if failure.is_transient() => (Kind::Unavailable, Code::Unavailable),
            _ => (Kind::FailedPrecondition, Code::FailedPrecondition),
        };
        match self {
            Self::Here(error) => error,
            Self::Broken(why) => Error::local(kind, grpc, format!("{what}: {why}")),
            Self::Refused(status, code) => {
                Error::local(kind, grpc, format!("{what}: the cloud's storage answered {} {code}", status.as_u16()))
            }
        }
    }
}

pub(crate) fn internal(message: &str) -> Error {
    Error::local(Kind::InternalError, Code::Internal, message)
}

/// `<Code>` of the storage's answer. The rest of it may repeat what was signed.
fn code(answer: &str) -> String {
    let after = answer.split_once("<Code>").map_or("", |(_, rest)| rest);
    after.chars().take(64).take_while(char::is_ascii_alphanumeric).collect()
}
