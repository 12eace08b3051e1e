//! How each address of the gateway is connected to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::Uri;
use tonic::transport::{ClientTlsConfig, Endpoint};

use crate::error::{Error, innermost};
use crate::target::Target;

const LARGEST_METADATA: u32 = 32 * 1024;

/// One name, and what is the same for all of its addresses.
pub(crate) struct Endpoints {
    origin: Uri,
    agent: String,
    tls: Option<ClientTlsConfig>,
}

impl Endpoints {
    pub(crate) fn new(target: &Target, agent: &str, tls: Option<ClientTlsConfig>) -> Result<Self, Error> {
        let origin = Uri::builder().scheme(scheme(tls.as_ref())).authority(target.authority()).path_and_query("/");
        let origin = origin.build().map_err(|error| Error::invalid(format!("{}: {error}", target.authority())))?;
        let endpoints = Self { origin, agent: agent.to_owned(), tls };
        // What is wrong with certificates or names is wrong for every address: say so now.
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), target.port);
        endpoints.at(any).map_err(|error| Error::invalid(innermost(&error)))?;
        Ok(endpoints)
    }

    /// The endpoint at one address.
    pub(crate) fn at(&self, address: SocketAddr) -> Result<Endpoint, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("{}://{address}", scheme(self.tls.as_ref())))?
            .origin(self.origin.clone())
            .user_agent(self.agent.clone())?
            .connect_timeout(Duration::from_secs(10))
            // The gateway takes pings from 20 s on; more often would be answered with GOAWAY "too_many_pings".
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            // Errors that name many fields are longer than what is taken by default.
            .http2_max_header_list_size(LARGEST_METADATA);
        match &self.tls {
            Some(config) => endpoint.tls_config(config.clone()),
            None => Ok(endpoint),
        }
    }
}

fn scheme(tls: Option<&ClientTlsConfig>) -> &'static str {
    if tls.is_some() { "https" } else { "http" }
}
