//! Duplicates in this process: one of them runs the call, and the others wait for its outcome.

use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::most_waiting;
use super::order::{Outcome, Route, RouteKey};
use crate::admission::RecordAsk;
use crate::error::{Error, Limit};
use crate::places::{self, Places};
use crate::sync::lock;

/// The calls with a `client_token` that run in this process, by the names of their records.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<Arc<str>, Flight>>);

/// A call's part among its duplicates.
pub(crate) enum Seat {
    /// It runs.
    Leader(Lead),
    /// It waits.
    Follower(Flight),
    /// It is another call under the token of one that runs. The store compares the two.
    Stranger,
}

/// The duty to run a call, and to report its outcome. If it is dropped without a report, the next
/// duplicate takes over.
pub(crate) struct Lead {
    flights: Arc<Flights>,
    name: Arc<str>,
    landed: watch::Sender<Option<Outcome>>,
}

/// A call that another duplicate runs.
#[derive(Clone)]
pub(crate) struct Flight {
    fingerprint: Arc<str>,
    outcome: watch::Receiver<Option<Outcome>>,
    /// When the call began, and when its caller stops waiting.
    pub since: Instant,
    pub deadline: Instant,
}

impl Flights {
    /// Takes the lead if no call has it.
    pub(crate) fn join(self: &Arc<Self>, record: &RecordAsk, deadline: Instant) -> Seat {
        let (name, fingerprint) = (record.name.clone(), record.fingerprint.clone());
        match self.flights().entry(name) {
            Entry::Occupied(flight) if flight.get().fingerprint != fingerprint => Seat::Stranger,
            Entry::Occupied(flight) => Seat::Follower(flight.get().clone()),
            Entry::Vacant(free) => {
                let (landed, outcome) = watch::channel(None);
                let name = free.key().clone();
                free.insert(Flight { fingerprint, outcome, since: Instant::now(), deadline });
                Seat::Leader(Lead { flights: Arc::clone(self), name, landed })
            }
        }
    }

    /// Whether a call with a record of this name runs.
    pub(crate) fn have(&self, name: &str) -> bool {
        self.flights().contains_key(name)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Arc<str>, Flight>> {
        lock(&self.0)
    }
}

impl Lead {
    /// Reports the outcome to every duplicate that waits. Later duplicates also get a result, until
    /// the lead is dropped, but never an error.
    pub(crate) fn land(&self, outcome: Outcome) {
        if outcome.is_err() {
            self.leave();
        }
        self.landed.send_replace(Some(outcome));
    }

    /// Another call may have taken the lead since this one left.
    fn leave(&self) {
        let mut flights = self.flights.flights();
        let own = self.landed.subscribe();
        if flights.get(&self.name).is_some_and(|flight| flight.outcome.same_channel(&own)) {
            flights.remove(&self.name);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Flight {
    /// The outcome of the call; `None`: its leader left without a report.
    pub(crate) async fn landed(&mut self) -> Option<Outcome> {
        self.outcome
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|outcome| outcome.clone())
    }
}

/// Duplicates and quota questions, which wait without a claim of their own. The tenant's
/// `max_in_flight` bounds them per upstream in this process, so that they cannot fill the gateway.
#[derive(Clone, Default)]
pub(crate) struct Waiting(Places<RouteKey>);

/// A place among the waiting calls.
pub(crate) type Place = places::Place<RouteKey>;

impl Waiting {
    /// Takes a place.
    pub(crate) fn enter(&self, route: &Route) -> Result<Place, Error> {
        let full = || Error::Limited { limit: Limit::TenantInFlight, retry_after: WAITING_RETRY };
        self.0.enter(&route.key(), most_waiting(route)).ok_or_else(full)
    }
}

/// The time in which one of the waiting calls has probably left.
const WAITING_RETRY: Duration = Duration::from_secs(1);
