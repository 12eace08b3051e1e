//! All addresses of the gateway, in turn.
//!
//! tonic has no round robin over the addresses of a name and no health checking; this does what gRPC does elsewhere
//! (proposals A17 and A24): every address is kept connected, those whose health service says that they do not serve are
//! left out, calls wait while the first connections are made and fail when there is none to be had. The name is looked
//! up again every 30 seconds, and when a connection is lost.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::endpoints::Endpoints;
use crate::error::{Error, innermost};
use crate::retry::Pauses;
use crate::target::Target;

const SERVICE: &str = "docpreview.v1.PreviewJobService";
const LOOK_UP_EVERY: Duration = Duration::from_secs(30);
const LOOK_UPS_APART: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is known of one address.
enum Place {
    Connecting,
    Ready(Channel),
    /// Until it is ready again: a try to connect does not change this.
    Failing(String),
}

/// What is known of all of them.
#[derive(Default)]
struct View {
    places: HashMap<SocketAddr, Place>,
    unresolved: Option<String>,
}

/// Channels to all addresses of a target, kept by a task of its own until this is dropped.
pub(crate) struct Balancer {
    view: watch::Receiver<View>,
    turn: AtomicUsize,
    keeper: AbortHandle,
}

impl Balancer {
    /// Begins to connect.
    pub(crate) fn start(target: Target, endpoints: Endpoints, health_checking: bool) -> Self {
        let (view, receiver) = watch::channel(View::default());
        let shared = Arc::new(Shared { view, endpoints, health_checking, lost: Notify::new() });
        let keeper = tokio::spawn(shared.keep(target)).abort_handle();
        Self { view: receiver, turn: AtomicUsize::new(0), keeper }
    }

    /// The next channel in turn; waits while none has been tried yet.
    ///
    /// Fails with `Unavailable` when no address can be reached; nothing was sent then.
    pub(crate) async fn channel(&self) -> Result<Channel, Error> {
        let mut view = self.view.clone();
        loop {
            if let Some(outcome) = self.pick(&view.borrow_and_update()) {
                return outcome;
            }
            if view.changed().await.is_err() {
                return Err(Error::unavailable("the client's runtime is shutting down"));
            }
        }
    }

    fn pick(&self, view: &View) -> Option<Result<Channel, Error>> {
        let mut ready: Vec<_> = view.places.iter().filter_map(|(address, place)| place.ready(address)).collect();
        if !ready.is_empty() {
            ready.sort_unstable_by_key(|(address, _)| **address);
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % ready.len();
            return Some(Ok(ready[turn].1.clone()));
        }
        if view.places.is_empty() {
            return view.unresolved.as_ref().map(|reason| Err(Error::unavailable(reason)));
        }
        let mut reasons = Vec::new();
        for (address, place) in &view.places {
            match place {
                Place::Failing(reason) => reasons.push(format!("{address}: {reason}")),
                Place::Connecting | Place::Ready(_) => return None,
            }
        }
        Some(Err(Error::unavailable(format!("no gateway can be reached: {}", reasons.join("; ")))))
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Place {
    fn ready<'a>(&'a self, address: &'a SocketAddr) -> Option<(&'a SocketAddr, &'a Channel)> {
        match self {
            Self::Ready(channel) => Some((address, channel)),
            Self::Connecting | Self::Failing(_) => None,
        }
    }
}

struct Shared {
    view: watch::Sender<View>,
    endpoints: Endpoints,
    health_checking: bool,
    lost: Notify,
}

impl Shared {
    /// Follows the name's addresses for ever. The tasks of the addresses end with this one.
    async fn keep(self: Arc<Self>, target: Target) {
        let mut tasks = JoinSet::new();
        let mut kept: HashMap<SocketAddr, AbortHandle> = HashMap::new();
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        loop {
            match target.addresses().await {
                Ok(found) => {
                    pauses = Pauses::up_to(LONGEST_PAUSE);
                    self.replace(&found, &mut kept, &mut tasks);
                    tokio::select! {
                        () = sleep(LOOK_UP_EVERY) => {}
                        () = self.lost.notified() => sleep(LOOK_UPS_APART).await,
                    }
                }
                Err(error) => {
                    let reason = format!("{}: {error}", target.authority());
                    self.view.send_modify(|view| view.unresolved = Some(reason));
                    sleep(pauses.next(None)).await;
                }
            }
        }
    }

    fn replace(
        self: &Arc<Self>,
        found: &[SocketAddr],
        kept: &mut HashMap<SocketAddr, AbortHandle>,
        tasks: &mut JoinSet<()>,
    ) {
        self.view.send_modify(|view| view.places.retain(|address, _| found.contains(address)));
        kept.retain(|address, task| {
            found.contains(address) || {
                task.abort();
                false
            }
        });
        for address in found {
            kept.entry(*address).or_insert_with(|| {
                self.note(*address, Place::Connecting);
                tasks.spawn(Arc::clone(self).keep_connected(*address))
            });
        }
    }

    /// Keeps one address connected, for ever.
    async fn keep_connected(self: Arc<Self>, address: SocketAddr) {
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        loop {
            match self.connect(address).await {
                Ok(channel) if !self.health_checking => return self.note(address, Place::Ready(channel)),
                Ok(channel) => match self.follow_health(address, channel).await {
                    // There is no such service there: the address is taken for healthy, as gRPC does.
                    Health::NotTold => return,
                    Health::Lost => {
                        pauses = Pauses::up_to(LONGEST_PAUSE);
                        self.note(address, Place::Connecting);
                        self.lost.notify_one();
                        continue;
                    }
                    Health::Failed(reason) => self.note(address, Place::Failing(reason)),
                },
                Err(reason) => {
                    self.note(address, Place::Failing(reason));
                    self.lost.notify_one();
                }
            }
            sleep(pauses.next(None)).await;
        }
    }

    async fn connect(&self, address: SocketAddr) -> Result<Channel, String> {
        let endpoint = self.endpoints.at(address).map_err(|error| innermost(&error))?;
        endpoint.connect().await.map_err(|error| innermost(&error))
    }

    /// Notes what the address says of itself, to the end of the connection. (tonic would connect anew by itself, but
    /// not say so.)
    async fn follow_health(&self, address: SocketAddr, channel: Channel) -> Health {
        let request = HealthCheckRequest { service: SERVICE.to_owned() };
        let mut heard = false;
        let end = match HealthClient::new(channel.clone()).watch(request).await {
            Ok(answer) => {
                let mut stream = answer.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(message)) => {
                            heard = true;
                            self.note(address, place(message.status(), &channel));
                        }
                        Ok(None) => break Status::unavailable("the health service ended its stream"),
                        Err(status) => break status,
                    }
                }
            }
            Err(status) => status,
        };
        match end.code() {
            Code::Unimplemented => {
                self.note(address, Place::Ready(channel));
                Health::NotTold
            }
            _ if heard => Health::Lost,
            _ => Health::Failed(innermost(&end)),
        }
    }

    fn note(&self, address: SocketAddr, place: Place) {
        self.view.send_modify(|view| {
            view.unresolved = None;
            view.places.insert(address, place);
        });
    }
}

/// How the following of an address's health ended.
enum Health {
    NotTold,
    Lost,
    Failed(String),
}

fn place(status: ServingStatus, channel: &Channel) -> Place {
    match status {
        ServingStatus::Serving => Place::Ready(channel.clone()),
        other => Place::Failing(format!("its health service says {}", other.as_str_name())),
    }
}
