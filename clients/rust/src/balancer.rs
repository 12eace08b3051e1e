//! All addresses of the gateway, in turn.
//!
//! tonic has no round robin over the addresses of a name and no health checking; this does what gRPC does elsewhere
//! (proposals A17 and A24): every address is kept connected, those whose health service says that they do not serve are
//! left out, calls wait while the first connections are made and fail when there is none to be had. The name is looked
//! up again every 30 seconds, and when a connection is lost.
//!
//! One address may stand for many gateways (a `ClusterIP`, a proxy). So an address that does not serve is connected to
//! again, which leads to another gateway where there is one; and while no address serves, the connections that are there
//! are used: a gateway that drains still answers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::core::Way;
use crate::endpoints::Endpoints;
use crate::error::{Error, innermost};
use crate::pool::{Lease, Pool};
use crate::retry::Pauses;
use crate::target::Target;

const SERVICE: &str = "docpreview.v1.PreviewJobService";
const LOOK_UP_EVERY: Duration = Duration::from_secs(30);
const LOOK_UPS_APART: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is known of one address.
enum Place {
    Connecting,
    Ready(Arc<Lines>),
    /// Connected, to a gateway that says that it does not serve.
    Refusing(Arc<Lines>),
    /// Until it is ready again: a try to connect does not change this.
    Failing(String),
}

/// Connections to one gateway.
struct Lines {
    channel: Channel,
    staying: Pool,
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

    /// A channel of the next address in turn; waits while none has been tried yet.
    ///
    /// Fails with `Unavailable` when no address can be reached; nothing was sent then.
    pub(crate) async fn channel(&self, way: Way) -> Result<Lease, Error> {
        let mut view = self.view.clone();
        loop {
            if let Some(outcome) = self.pick(&view.borrow_and_update()) {
                return outcome.map(|lines| match way {
                    Way::Usual => Lease::uncounted(lines.channel.clone()),
                    Way::Staying => lines.staying.lease(),
                });
            }
            if view.changed().await.is_err() {
                return Err(Error::unavailable("the client's runtime is shutting down"));
            }
        }
    }

    fn pick(&self, view: &View) -> Option<Result<Arc<Lines>, Error>> {
        if let Some(lines) = self.in_turn(view, Place::ready).or_else(|| self.in_turn(view, Place::refusing)) {
            return Some(Ok(lines));
        }
        if view.places.is_empty() {
            return view.unresolved.as_ref().map(|reason| Err(Error::unavailable(reason)));
        }
        let mut reasons = Vec::new();
        for (address, place) in &view.places {
            match place {
                Place::Failing(reason) => reasons.push(format!("{address}: {reason}")),
                _ => return None,
            }
        }
        Some(Err(Error::unavailable(format!("no gateway can be reached: {}", reasons.join("; ")))))
    }

    fn in_turn(&self, view: &View, usable: fn(&Place) -> Option<&Arc<Lines>>) -> Option<Arc<Lines>> {
        let mut found: Vec<_> =
            view.places.iter().filter_map(|(address, place)| Some((address, usable(place)?))).collect();
        found.sort_unstable_by_key(|(address, _)| **address);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(found.len())?;
        Some(Arc::clone(found[turn].1))
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Place {
    fn ready(&self) -> Option<&Arc<Lines>> {
        match self {
            Self::Ready(lines) => Some(lines),
            _ => None,
        }
    }

    fn refusing(&self) -> Option<&Arc<Lines>> {
        match self {
            Self::Refusing(lines) => Some(lines),
            _ => None,
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
                    self.close_idle();
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

    /// Closes connections for calls that stay open when there have been none for 30 seconds or so.
    fn close_idle(&self) {
        let view = self.view.borrow();
        for lines in view.places.values().filter_map(|place| place.ready().or_else(|| place.refusing())) {
            lines.staying.close_idle();
        }
    }

    /// Keeps one address connected, for ever.
    async fn keep_connected(self: Arc<Self>, address: SocketAddr) {
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        let mut next = self.connect(address).await;
        loop {
            match next {
                Ok(lines) if !self.health_checking => return self.note(address, Place::Ready(lines)),
                Ok(lines) => match self.follow_health(address, &lines, &mut pauses).await {
                    // There is no such service there: the address is taken for healthy, as gRPC does.
                    Health::NotTold => return self.note(address, Place::Ready(lines)),
                    Health::Replaced(lines) => {
                        next = Ok(lines);
                        continue;
                    }
                    Health::Lost => {
                        pauses = Pauses::up_to(LONGEST_PAUSE);
                        self.note(address, Place::Connecting);
                        self.lost.notify_one();
                        next = self.connect(address).await;
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
            next = self.connect(address).await;
        }
    }

    async fn connect(&self, address: SocketAddr) -> Result<Arc<Lines>, String> {
        let endpoint = self.endpoints.at(address).map_err(|error| innermost(&error))?;
        let channel = endpoint.connect().await.map_err(|error| innermost(&error))?;
        Ok(Arc::new(Lines { channel, staying: Pool::new(endpoint) }))
    }

    /// Notes what the address says of itself, to the end of the connection, or until there is another while it does not
    /// serve. (tonic would connect anew by itself, but not say so.)
    async fn follow_health(&self, address: SocketAddr, lines: &Arc<Lines>, pauses: &mut Pauses) -> Health {
        let request = HealthCheckRequest { service: SERVICE.to_owned() };
        let mut stream = match HealthClient::new(lines.channel.clone()).watch(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return ended(&status, false),
        };
        let mut heard = false;
        let mut look_elsewhere = None;
        loop {
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(message)) if message.status() == ServingStatus::Serving => {
                        (heard, look_elsewhere) = (true, None);
                        *pauses = Pauses::up_to(LONGEST_PAUSE);
                        self.note(address, Place::Ready(Arc::clone(lines)));
                    }
                    Ok(Some(_)) => {
                        heard = true;
                        look_elsewhere = Some(Instant::now() + pauses.next(None));
                        self.note(address, Place::Refusing(Arc::clone(lines)));
                    }
                    Ok(None) => return ended(&Status::unavailable("the health service ended its stream"), heard),
                    Err(status) => return ended(&status, heard),
                },
                () = sleep_until(look_elsewhere.unwrap_or_else(Instant::now)), if look_elsewhere.is_some() => {
                    match self.connect(address).await {
                        Ok(other) => return Health::Replaced(other),
                        Err(_) => look_elsewhere = Some(Instant::now() + pauses.next(None)),
                    }
                }
            }
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
    /// By a new connection to the same address.
    Replaced(Arc<Lines>),
    Failed(String),
}

fn ended(status: &Status, heard: bool) -> Health {
    match status.code() {
        Code::Unimplemented => Health::NotTold,
        _ if heard => Health::Lost,
        _ => Health::Failed(innermost(status)),
    }
}
