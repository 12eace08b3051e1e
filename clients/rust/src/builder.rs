//! What a user of the client can choose.

use std::fmt;
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use tonic::{Request, Status};

use crate::balancer::Balancer;
use crate::client::Client;
use crate::core::{Core, Options, Timeouts};
use crate::endpoints::Endpoints;
use crate::error::{Cause, Error};
use crate::retry::Budget;
use crate::target::Target;

pub(crate) type Token = Box<dyn Fn() -> Result<String, Cause> + Send + Sync>;
pub(crate) type Interceptor = Box<dyn Fn(Request<()>) -> Result<Request<()>, Status> + Send + Sync>;

/// What a source of tokens gives: a token, or why there is none.
pub trait IntoToken {
    /// The token, or why there is none.
    ///
    /// # Errors
    ///
    /// Whatever kept the source from giving one.
    fn into_token(self) -> Result<String, Cause>;
}

impl IntoToken for String {
    fn into_token(self) -> Result<String, Cause> {
        Ok(self)
    }
}

impl<E: Into<Cause>> IntoToken for Result<String, E> {
    fn into_token(self) -> Result<String, Cause> {
        self.map_err(Into::into)
    }
}

/// An encrypted connection. `Tls::default()` checks the gateway's certificate against the authorities that the
/// machine trusts. Certificates and keys are PEM.
#[derive(Clone, Default)]
pub struct Tls {
    root_certificates: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    server_name: Option<String>,
}

impl Tls {
    /// Trusts these authorities only.
    pub fn trusting(root_certificates: impl Into<Vec<u8>>) -> Self {
        Self { root_certificates: Some(root_certificates.into()), ..Self::default() }
    }

    /// Shows the gateway this certificate of the client (mTLS).
    #[must_use]
    pub fn certificate(mut self, chain: impl Into<Vec<u8>>, private_key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((chain.into(), private_key.into()));
        self
    }

    /// The name that the gateway's certificate must have. Default: the host of the target. Needed when the target is
    /// a forwarded port or an address.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    fn config(&self, host: &str) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().domain_name(self.server_name.as_deref().unwrap_or(host));
        let config = match &self.root_certificates {
            Some(roots) => config.ca_certificate(Certificate::from_pem(roots)),
            None => config.with_native_roots(),
        };
        match &self.identity {
            Some((chain, key)) => config.identity(Identity::from_pem(chain, key)),
            None => config,
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// Settings of a new [`Client`], each with its default.
pub struct Builder {
    target: String,
    tls: Option<Tls>,
    token: Option<Token>,
    interceptor: Option<Interceptor>,
    user_agent: String,
    health_checking: bool,
    timeouts: Timeouts,
}

impl Builder {
    pub(crate) fn new(target: String) -> Self {
        Self {
            target,
            tls: None,
            token: None,
            interceptor: None,
            user_agent: String::new(),
            health_checking: true,
            timeouts: Timeouts {
                unary: Duration::from_secs(30),
                wait: Duration::from_secs(5 * 60),
                watch: Duration::from_secs(60 * 60),
                idle: Duration::from_secs(60),
                unreachable: Duration::from_secs(60),
            },
        }
    }

    /// Encrypts the connection. Default: not encrypted.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sent as `authorization: Bearer <token>`; asked before every call, for tokens that change. It must not block. It
    /// gives a `String` or a `Result<String, _>`: with an error the call fails at once as `Unauthenticated`, with that as
    /// its source. Default: none.
    #[must_use]
    pub fn token<T: IntoToken>(mut self, source: impl Fn() -> T + Send + Sync + 'static) -> Self {
        self.token = Some(Box::new(move || source().into_token()));
        self
    }

    /// Sees the metadata of every attempt of every call before it is sent, and may change it, for example to add
    /// `traceparent`, or end the call with a status. As [`tonic::service::Interceptor`]. Default: none.
    #[must_use]
    pub fn interceptor(
        mut self,
        intercept: impl Fn(Request<()>) -> Result<Request<()>, Status> + Send + Sync + 'static,
    ) -> Self {
        self.interceptor = Some(Box::new(intercept));
        self
    }

    /// Put in front of the client's own user agent: name your service here. Default: nothing.
    #[must_use]
    pub fn user_agent(mut self, name: impl Into<String>) -> Self {
        self.user_agent = name.into();
        self
    }

    /// Whether addresses whose health service reports the gateway as not serving are avoided while there are others, and
    /// connected to again (a Kubernetes `ClusterIP` then leads to another gateway). Default true.
    #[must_use]
    pub fn health_checking(mut self, enabled: bool) -> Self {
        self.health_checking = enabled;
        self
    }

    /// How long creates and reads may take, all attempts together. Default 30 seconds.
    #[must_use]
    pub fn unary_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.unary = timeout;
        self
    }

    /// How long `wait` waits. Default 5 minutes.
    #[must_use]
    pub fn wait_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.wait = timeout;
        self
    }

    /// How long a watch may take, over all its streams. Default 1 hour.
    #[must_use]
    pub fn watch_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.watch = timeout;
        self
    }

    /// A watch's stream on which nothing comes for this long, not even a heartbeat, is dead: another is opened. Keep
    /// it well above the gateway's heartbeat interval (15 seconds by default). Default 60 seconds.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.idle = timeout;
        self
    }

    /// For how long a watch or wait tries to reach the gateway again while nothing comes at all. Default 60 seconds.
    #[must_use]
    pub fn unreachable_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.unreachable = timeout;
        self
    }

    /// A client, which begins to connect in the background.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` when the target cannot be read, the certificates cannot be read, or a token would go to
    /// another machine in the clear.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn build(self) -> Result<Client, Error> {
        let target = Target::parse(&self.target)?;
        if self.token.is_some() && self.tls.is_none() && !target.is_loopback() {
            return Err(Error::invalid(format!(
                "a token may not be sent to {} in the clear: give tls, or a target on this machine",
                self.target
            )));
        }
        let tls = self.tls.as_ref().map(|tls| tls.config(&target.host));
        let agent = format!("{} docpreview-client-rust/{}", self.user_agent, env!("CARGO_PKG_VERSION"));
        let endpoints = Endpoints::new(&target, agent.trim(), tls)?;
        let core = Core {
            balancer: Balancer::start(target, endpoints, self.health_checking),
            budget: Budget::new(),
            token: self.token,
            interceptor: self.interceptor,
            #[cfg(feature = "files")]
            http: std::sync::OnceLock::new(),
        };
        let options =
            Options { timeouts: self.timeouts, no_cache: false, create_once: false, metadata: None, on_reply: None };
        Ok(Client::new(core, options))
    }
}
