//! What happened of late in this process, for the console: decisions, attempts, and the calls that
//! were refused or failed.
//!
//! It is bounded, whatever the number of tenants: see [`MOST_ROUTES`]. A call costs one short lock
//! for its decision, and one for each attempt. A refused or failed call costs one more.

mod recent;
mod ring;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;

use crate::call::{Disposition, Ended, Notes};
use crate::domain::Name;
use crate::sync::lock;
pub(crate) use recent::FailedCall;
use recent::Recent;
use ring::Ring;
pub(crate) use ring::{POINT, POINTS, SLOT};

/// The last 15 minutes of this process.
#[derive(Debug)]
pub(crate) struct History {
    started: Instant,
    decided: Mutex<HashMap<(Name, Name), Ring>>,
    attempts: Mutex<Attempts>,
    reasons: Mutex<BTreeMap<&'static str, Ring>>,
    recent: Mutex<Recent>,
    /// The latest round trips to Redis, µs; 0: none yet.
    round_trips: [AtomicU32; ROUND_TRIPS],
    round_trip: AtomicU32,
}

#[derive(Debug, Default)]
struct Attempts {
    /// In the order of the counts.
    outcomes: Vec<&'static str>,
    upstreams: BTreeMap<Name, Ring>,
}

/// What was counted of one kind: in the last minute, and over 15 minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    /// What kind: a decision's or an outcome's name.
    pub kind: &'static str,
    /// In the last minute.
    pub last_minute: u64,
    /// One figure each [`POINT`], the oldest first; the last one still grows.
    pub(crate) points: Vec<u32>,
}

impl History {
    /// Begins now.
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            decided: Mutex::default(),
            attempts: Mutex::default(),
            reasons: Mutex::default(),
            recent: Mutex::default(),
            round_trips: [const { AtomicU32::new(0) }; ROUND_TRIPS],
            round_trip: AtomicU32::new(0),
        }
    }

    /// How long this process has been counting.
    #[must_use]
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Admission has decided a call.
    pub(super) fn note_decision(&self, tenant: &Name, upstream: &Name, decision: Disposition) {
        let (now, route) = (self.slot(), (tenant.clone(), upstream.clone()));
        let mut decided = lock(&self.decided);
        if let Some(ring) = decided.get_mut(&route) {
            return ring.count(now, decision as usize);
        }
        if has_room(&mut decided, now) {
            let ring = decided.entry(route);
            let ring = ring.or_insert_with(|| Ring::new(Disposition::ALL.len(), now));
            ring.count(now, decision as usize);
        }
    }

    /// From now on attempts at this upstream are counted, with these outcomes.
    pub(super) fn start_upstream(&self, upstream: &Name, outcomes: &[&'static str]) {
        let now = self.slot();
        let mut attempts = lock(&self.attempts);
        if attempts.outcomes.is_empty() {
            attempts.outcomes = outcomes.to_vec();
        }
        let width = attempts.outcomes.len();
        if attempts.upstreams.len() < MOST_UPSTREAMS {
            attempts
                .upstreams
                .entry(upstream.clone())
                .or_insert_with(|| Ring::new(width, now));
        }
    }

    /// An attempt at Connect has ended.
    pub(super) fn note_attempt(&self, upstream: &Name, outcome: &'static str) {
        let now = self.slot();
        let Attempts { outcomes, upstreams } = &mut *lock(&self.attempts);
        let at = outcomes.iter().position(|known| *known == outcome);
        if let Some((ring, at)) = upstreams.get_mut(upstream).zip(at) {
            ring.count(now, at);
        }
    }

    /// A call was refused, or failed.
    pub(super) fn note_failed(&self, notes: &Notes, ended: &Ended) {
        let now = self.slot();
        lock(&self.reasons)
            .entry(ended.reason)
            .or_insert_with(|| Ring::new(1, now))
            .count(now, 0);
        lock(&self.recent).note(notes, ended);
    }

    /// Redis has answered, after this time.
    pub(super) fn note_round_trip(&self, took: Duration) {
        let at = self.round_trip.fetch_add(1, Relaxed) as usize % ROUND_TRIPS;
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        self.round_trips[at].store(micros, Relaxed);
    }

    /// The tenants that have called of late, with their upstreams and the number of decisions in
    /// the last minute. The most decisions come first.
    #[must_use]
    pub(crate) fn routes(&self) -> Vec<((Name, Name), u64)> {
        let now = self.slot();
        let decided = lock(&self.decided);
        let used = decided.iter().filter(|(_, ring)| ring.is_used(now));
        let mut routes: Vec<_> =
            used.map(|(route, ring)| (route.clone(), ring.minute(now))).collect();
        drop(decided);
        routes.sort_unstable_by(|(a, one), (b, other)| other.cmp(one).then_with(|| a.cmp(b)));
        routes
    }

    /// What admission decided of a tenant's calls to an upstream; every decision, in a fixed order.
    #[must_use]
    pub(crate) fn decisions(&self, tenant: &Name, upstream: &Name) -> Vec<Counted> {
        let now = self.slot();
        let decided = lock(&self.decided);
        let ring = decided.get(&(tenant.clone(), upstream.clone()));
        let kinds = Disposition::ALL.into_iter().map(Disposition::as_str).enumerate();
        kinds.map(|(at, kind)| counted(ring, kind, now, at)).collect()
    }

    /// How the attempts at an upstream ended, by outcome; those that never were are left out.
    #[must_use]
    pub(crate) fn outcomes(&self, upstream: &Name) -> Vec<Counted> {
        let now = self.slot();
        let attempts = lock(&self.attempts);
        let ring = attempts.upstreams.get(upstream);
        let outcomes = attempts.outcomes.iter().enumerate();
        let counted = outcomes.map(|(at, kind)| counted(ring, kind, now, at));
        counted
            .filter(|counted| counted.points.iter().any(|count| *count > 0))
            .collect()
    }

    /// Why calls were refused or failed in the last minute, the most frequent reason first.
    #[must_use]
    pub(crate) fn reasons(&self) -> Vec<(&'static str, u64)> {
        let now = self.slot();
        let reasons = lock(&self.reasons);
        let mut counts: Vec<_> = reasons
            .iter()
            .map(|(reason, ring)| (*reason, ring.last_minute(now, 0)))
            .collect();
        counts.retain(|(_, count)| *count > 0);
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }

    /// The last calls that were refused or failed, the latest first.
    #[must_use]
    pub(crate) fn failed_calls(&self) -> Vec<FailedCall> {
        lock(&self.recent).latest()
    }

    /// The median of the latest round trips to Redis.
    #[must_use]
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        let known = self.round_trips.iter().map(|micros| micros.load(Relaxed));
        let mut known: Vec<_> = known.filter(|micros| *micros > 0).collect();
        known.sort_unstable();
        let median = known.get(known.len() / 2)?;
        Some(Duration::from_micros(u64::from(*median)))
    }

    fn slot(&self) -> u64 {
        self.started.elapsed().as_secs() / SLOT.as_secs()
    }
}

/// Whether one more tenant with its upstream can be counted. If all places are taken, one call in
/// sixteen takes the place of the least used: so a tenant that calls often is counted soon, and
/// tenants that call rarely do not drive each other out.
fn has_room(decided: &mut HashMap<(Name, Name), Ring>, now: u64) -> bool {
    if decided.len() < MOST_ROUTES {
        return true;
    }
    if fastrand::u8(..16) > 0 {
        return false;
    }
    let least = decided
        .iter()
        .min_by(|(_, one), (_, other)| one.heat(now).total_cmp(&other.heat(now)));
    let Some(least) = least.map(|(route, _)| route.clone()) else { return false };
    decided.remove(&least);
    true
}

fn counted(ring: Option<&Ring>, kind: &'static str, now: u64, at: usize) -> Counted {
    let last_minute = ring.map_or(0, |ring| ring.last_minute(now, at));
    let points = ring.map_or_else(|| vec![0; POINTS], |ring| ring.points(now, at));
    Counted { kind, last_minute, points }
}

/// Tenants with an upstream that are counted at a time: 4.4 KiB each, 1.3 MiB together.
const MOST_ROUTES: usize = 300;

/// Upstreams that are counted: 12 KiB each, 0.4 MiB together.
const MOST_UPSTREAMS: usize = 32;

/// As many round trips the median is taken of.
const ROUND_TRIPS: usize = 64;

#[cfg(test)]
mod tests;
