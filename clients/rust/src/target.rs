//! Where the gateway is.

use std::net::{IpAddr, SocketAddr};

use crate::error::Error;

/// `host:port`, all of whose addresses are used in turn, or the addresses themselves (`ipv4:1.2.3.4:5,1.2.3.5:5`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    fixed: Vec<SocketAddr>,
}

impl Target {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::invalid(format!("{text:?} is no target: give host:port or dns:///host:port"));
        if let Some(list) = without(text, &["ipv4:", "ipv6:"]) {
            let fixed: Vec<SocketAddr> =
                list.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
            let first = fixed[0];
            return Ok(Self { host: first.ip().to_string(), port: first.port(), fixed });
        }
        let address = without(text, &["dns:///", "dns:"]).unwrap_or(text);
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| wrong())?;
        if host.is_empty() || host.contains('/') {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port, fixed: Vec::new() })
    }

    /// Whether everything that is sent there stays on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let fixed = self.fixed.iter().all(|address| address.ip().is_loopback());
        fixed
            && match self.host.parse::<IpAddr>() {
                Ok(address) => address.is_loopback(),
                Err(_) => self.host.eq_ignore_ascii_case("localhost"),
            }
    }

    /// `host:port` as it stands in an address.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// All addresses of the host.
    pub(crate) async fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        if !self.fixed.is_empty() {
            return Ok(self.fixed.clone());
        }
        let found: Vec<_> = tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect();
        if found.is_empty() { Err(std::io::Error::other("the name has no addresses")) } else { Ok(found) }
    }
}

fn without<'a>(text: &'a str, schemes: &[&str]) -> Option<&'a str> {
    schemes.iter().find_map(|scheme| text.strip_prefix(scheme))
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn targets_as_grpc_writes_them() {
        for text in ["gateway:50051", "dns:///gateway:50051", "dns:gateway:50051"] {
            assert_eq!(Target::parse(text).unwrap().authority(), "gateway:50051");
        }
        assert_eq!(Target::parse("[::1]:1").unwrap().authority(), "[::1]:1");
        for text in ["gateway", "http://gateway:1", "gateway:port", ":1", "dns://8.8.8.8/gateway:1", "unix:/path"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for text in ["localhost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "ipv4:127.0.0.1:1,127.0.0.2:1"] {
            assert!(Target::parse(text).unwrap().is_loopback(), "{text}");
        }
        for text in
            ["gateway:1", "10.0.0.1:1", "127.0.0.1.example:1", "localhost.example:1", "ipv4:127.0.0.1:1,10.0.0.1:1"]
        {
            assert!(!Target::parse(text).unwrap().is_loopback(), "{text}");
        }
    }
}
