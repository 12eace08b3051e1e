//! Connections for calls that stay open.
//!
//! The gateway admits 100 streams per connection. Watches and waits travel on connections of their own, as many as they
//! take, so that any number of them leaves the connection of the other calls to those.

use std::sync::{Arc, Mutex, PoisonError};

use tonic::transport::{Channel, Endpoint};

/// Somewhat fewer than the gateway admits: a stream that has ended here may not have ended there yet.
const STREAMS: usize = 90;

/// A channel for one call. What holds this keeps the call's place on the connection.
pub(crate) struct Lease {
    pub(crate) channel: Channel,
    _stream: Option<Arc<()>>,
}

impl Lease {
    /// Of a connection whose calls are not counted.
    pub(crate) fn uncounted(channel: Channel) -> Self {
        Self { channel, _stream: None }
    }
}

/// The connections of one address.
pub(crate) struct Pool {
    endpoint: Endpoint,
    connections: Mutex<Vec<Connection>>,
}

struct Connection {
    channel: Channel,
    /// Each of its streams has a clone.
    streams: Arc<()>,
    was_idle: bool,
}

impl Connection {
    fn streams(&self) -> usize {
        Arc::strong_count(&self.streams) - 1
    }
}

impl Pool {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, connections: Mutex::default() }
    }

    /// A place on the first connection that has one; a new connection when all are full.
    pub(crate) fn lease(&self) -> Lease {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let free = connections.iter().position(|connection| connection.streams() < STREAMS);
        let index = free.unwrap_or_else(|| {
            let channel = self.endpoint.connect_lazy();
            connections.push(Connection { channel, streams: Arc::default(), was_idle: false });
            connections.len() - 1
        });
        let connection = &mut connections[index];
        connection.was_idle = false;
        Lease { channel: connection.channel.clone(), _stream: Some(Arc::clone(&connection.streams)) }
    }

    /// Closes the connections that had no stream at the last call of this and have none now.
    pub(crate) fn close_idle(&self) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).retain_mut(|connection| {
            let idle = connection.streams() == 0;
            !(std::mem::replace(&mut connection.was_idle, idle) && idle)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, Lease, Pool, STREAMS};

    fn connections(pool: &Pool) -> usize {
        pool.connections.lock().unwrap().len()
    }

    /// A connection that is full is followed by another; those without streams are closed the second time they are seen.
    #[tokio::test]
    async fn connections_come_and_go_with_their_streams() {
        let pool = Pool::new(Endpoint::from_static("http://127.0.0.1:1"));
        let mut leases: Vec<Lease> = (0..=STREAMS).map(|_| pool.lease()).collect();
        assert_eq!(connections(&pool), 2);
        leases.truncate(STREAMS);
        pool.close_idle();
        assert_eq!(connections(&pool), 2);
        pool.close_idle();
        assert_eq!(connections(&pool), 1);
        drop(leases);
        pool.close_idle();
        drop(pool.lease());
        pool.close_idle();
        assert_eq!(connections(&pool), 1, "it was used in between");
        pool.close_idle();
        assert_eq!(connections(&pool), 0);
    }
}
