//! When a call is made again.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::error::{Error, Kind};

const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The pauses between attempts: growing from 0.2 seconds, and different from one client to another.
pub(crate) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { next: FIRST_PAUSE, longest }
    }

    /// The pause before the next attempt, never shorter than the gateway asks for.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let pause = self.next.max(asked.unwrap_or_default());
        self.next = (self.next * 2).min(self.longest);
        pause.mul_f64(rand::random_range(1.0..1.3))
    }
}

/// Sleeps for `pause`; fails with `DeadlineExceeded` at the deadline, when that comes first.
pub(crate) async fn sleep(pause: Duration, deadline: Instant) -> Result<(), Error> {
    let awake = Instant::now() + pause;
    sleep_until(awake.min(deadline)).await;
    if awake < deadline { Ok(()) } else { Err(Error::deadline_passed()) }
}

/// Keeps retries of reads from keeping a struggling gateway down: at most one for ten successes in the long run, as
/// gRPC's `retryThrottling` has it.
pub(crate) struct Budget(Mutex<f64>);

impl Budget {
    const MOST: f64 = 100.0;
    const FOR_A_SUCCESS: f64 = 0.1;

    pub(crate) fn new() -> Self {
        Self(Mutex::new(Self::MOST))
    }

    pub(crate) fn succeeded(&self) {
        let mut tokens = self.tokens();
        *tokens = (*tokens + Self::FOR_A_SUCCESS).min(Self::MOST);
    }

    /// Takes note of a failure; whether it may be followed by another attempt.
    pub(crate) fn failed(&self) -> bool {
        let mut tokens = self.tokens();
        *tokens = (*tokens - 1.0).max(0.0);
        *tokens > Self::MOST / 2.0
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, f64> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Whether and when a call that the gateway broke off is made again: one watch or wait, over all its calls.
pub(crate) struct Reconnecting {
    deadline: Instant,
    patience: Duration,
    pauses: Pauses,
    give_up: Option<Instant>,
    ever_heard: bool,
}

impl Reconnecting {
    pub(crate) fn new(deadline: Instant, patience: Duration) -> Self {
        Self { deadline, patience, pauses: Self::pauses(), give_up: None, ever_heard: false }
    }

    fn pauses() -> Pauses {
        Pauses::up_to(Duration::from_secs(10))
    }

    /// Takes note that a message came: the gateway is there.
    pub(crate) fn heard(&mut self) {
        self.ever_heard = true;
        self.give_up = None;
        self.pauses = Self::pauses();
    }

    /// Sleeps until the next attempt is due. Fails with `error` itself when it does not pass by waiting, when no
    /// gateway has ever answered (a wrong address does not get better), or when none has for longer than the patience.
    pub(crate) async fn pause_after(&mut self, error: Error) -> Result<(), Error> {
        self.ever_heard = self.ever_heard || error.is_answer();
        if error.kind() != Kind::Unavailable || !self.ever_heard {
            return Err(error);
        }
        let now = Instant::now();
        let give_up = *self.give_up.get_or_insert(now + self.patience);
        if give_up <= now {
            return Err(error);
        }
        sleep(self.pauses.next(error.retry_delay()), self.deadline).await
    }
}
