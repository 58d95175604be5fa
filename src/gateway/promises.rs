//! The hints that a tenant's refused callers have: each caller has a time of its own to come back.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The ends of the hints by a tenant's rate that callers have, as this gateway knows them.
///
/// The store gives a hint to each call that it refuses, in a row. This gateway continues the row
/// for the calls that it refuses itself. The store does not know of these hints, so an answer of
/// the store may name a time that another caller already has.
#[derive(Debug)]
pub(super) struct Promises {
    last: Instant,
    /// The hints that the store does not know: each run is after its first instant, up to its
    /// second.
    own: VecDeque<(Instant, Instant)>,
}

impl Promises {
    /// A store's hint, which no caller has yet.
    pub(super) const fn new(at: Instant) -> Self {
        Self { last: at, own: VecDeque::new() }
    }

    /// The end of the last hint.
    pub(super) const fn last(&self) -> Instant {
        self.last
    }

    /// The end of the hint that [`Self::give`] would give. `each`: the time of one call.
    pub(super) fn next(&self, now: Instant, each: Duration) -> Instant {
        (self.last.max(now) + each).min(now + MAX_HINT)
    }

    /// Gives a hint after all others.
    pub(super) fn give(&mut self, now: Instant, each: Duration) -> Instant {
        let at = self.next(now, each);
        match self.own.back_mut() {
            Some((_, last)) if *last == self.last => *last = at,
            _ => self.own.push_back((self.last, at)),
        }
        self.last = at;
        if self.own.len() > MAX_RUNS {
            self.join_oldest();
        }
        at
    }

    /// Passes a hint of the store on, or gives another where a caller has this one. The answers of
    /// the store come in any order, and each is late by another time: half a place decides.
    pub(super) fn pass_on(&mut self, at: Instant, now: Instant, each: Duration) -> Instant {
        let half = each / 2;
        if self.own.iter().any(|&(after, last)| after + half < at && at < last + half) {
            return self.give(now, each);
        }
        self.last = self.last.max(at);
        at
    }

    /// The two oldest runs become one. A hint of the store between them then counts as taken.
    fn join_oldest(&mut self) {
        if let Some((after, _)) = self.own.pop_front()
            && let Some(oldest) = self.own.front_mut()
        {
            oldest.0 = after;
        }
    }
}

/// The longest hint.
pub(super) const MAX_HINT: Duration = Duration::from_secs(30);

/// So many runs are told apart.
const MAX_RUNS: usize = 16;
