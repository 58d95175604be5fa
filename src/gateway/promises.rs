//! The hints that a tenant's refused callers have: each caller has a time of its own to come back.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The ends of the hints by a tenant's rate that callers have, as this gateway knows them.
///
/// The store gives each call that it refuses a later hint than the one before. This gateway goes on
/// in the same way for the calls that it refuses itself. The store does not know of these hints, so
/// it may give the same ones to other callers.
#[derive(Debug)]
pub(super) struct Promises {
    /// The end of the last hint.
    last: Instant,
    /// The hints that the store does not know.
    own: VecDeque<Run>,
}

/// Hints of this gateway, one after another.
#[derive(Debug)]
struct Run {
    /// The end of the hint before the first.
    after: Instant,
    /// The end of the last.
    until: Instant,
}

impl Promises {
    /// Begins with a hint of the store.
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
            Some(run) if run.until == self.last => run.until = at,
            _ => self.own.push_back(Run { after: self.last, until: at }),
        }
        self.last = at;
        if self.own.len() > MAX_RUNS {
            self.join_oldest();
        }
        at
    }

    /// Passes a hint of the store on, or gives another where a caller has this one.
    ///
    /// The answers of the store come in any order, with delays that differ. So a hint counts as the
    /// same if it is less than half of `each` away.
    pub(super) fn pass_on(&mut self, at: Instant, now: Instant, each: Duration) -> Instant {
        let half = each / 2;
        if self.own.iter().any(|run| run.after + half < at && at < run.until + half) {
            return self.give(now, each);
        }
        self.last = self.last.max(at);
        at
    }

    /// The two oldest runs become one. A hint of the store between them then counts as taken.
    fn join_oldest(&mut self) {
        if let Some(oldest) = self.own.pop_front()
            && let Some(next) = self.own.front_mut()
        {
            next.after = oldest.after;
        }
    }
}

/// The longest hint.
pub(super) const MAX_HINT: Duration = Duration::from_secs(30);

/// So many runs are told apart.
const MAX_RUNS: usize = 16;
