//! A copy of the store, for the explorer of the protocol. Nothing else reads it.

use super::queue::Kind;
use super::record::State;
use super::upstream::UpstreamState;
use crate::admission::{Nonce, Scope};

/// All that stands for one tenant on an upstream. Every time is in µs of the upstream's clock.
#[doc(hidden)]
#[derive(Debug)]
pub struct Copied {
    /// The upstream's clock.
    pub m: u64,
    /// What is left of the upstream's budget, in calls.
    pub budget: f64,
    /// What is left of the tenant's ceiling, in calls.
    pub ceiling: f64,
    /// How many queued calls have paid at the ceiling.
    pub queued: u32,
    /// The calls in flight, and the ends of their leases.
    pub flights: Vec<(Nonce, u64)>,
    /// The calls that wait, in order of arrival.
    pub waiting: Vec<WaitingCopy>,
    /// The largest tag that has started.
    pub served: u64,
    /// The tag of the tenant's last start.
    pub last_start: Option<u64>,
    /// The record.
    pub record: Option<RecordCopy>,
}

/// A place in the queue.
#[doc(hidden)]
#[derive(Debug)]
pub struct WaitingCopy {
    /// The nonce of its call.
    pub nonce: Nonce,
    /// Whether it is a further attempt of a granted call.
    pub is_attempt: bool,
    /// When it is dropped, unless the call asks again.
    pub dropped: u64,
}

/// A record. Its times are in µs of the upstream's clock.
#[doc(hidden)]
#[derive(Debug)]
pub struct RecordCopy {
    /// The name of its state in Redis.
    pub state: &'static str,
    /// The nonce of its claim, and the end of its lease.
    pub claim: Option<(Nonce, u64)>,
    /// The keyed hash of its content.
    pub fingerprint: String,
    /// The sticky bit.
    pub sticky: bool,
    /// When it is forgotten.
    pub until: u64,
    /// The result, and when it ends.
    pub body: Option<(Vec<u8>, u64)>,
}

impl UpstreamState {
    pub(super) fn copied(&mut self, scope: &Scope, record: &str, now: u64) -> Copied {
        self.advance(scope, now, None);
        let tenant = self.tenants.entry(scope.tenant.clone()).or_default();
        let levels = tenant.levels(scope, &self.budget);
        let waiting = self.queue.waiting.iter().map(|waiter| WaitingCopy {
            nonce: waiter.nonce,
            is_attempt: waiter.kind == Kind::Attempt,
            dropped: waiter.dropped,
        });
        Copied {
            m: self.budget.m,
            budget: self.budget.level,
            ceiling: levels.ceiling,
            queued: levels.queued,
            flights: tenant.flights.iter().map(|(nonce, lease)| (*nonce, lease.ends)).collect(),
            waiting: waiting.collect(),
            served: self.queue.served,
            last_start: self.queue.starts.get(&scope.tenant).copied(),
            record: self.records.get(record).map(|record| RecordCopy {
                state: match record.state {
                    State::InFlight { .. } => "in_flight",
                    State::Done => "done",
                    State::Tombstone => "tombstone",
                    State::Uncertain => "uncertain",
                },
                claim: match record.state {
                    State::InFlight { nonce, lease } => Some((nonce, lease)),
                    _ => None,
                },
                fingerprint: record.fingerprint.to_string(),
                sticky: record.sticky,
                until: record.until,
                body: record.body.as_ref().map(|body| (body.sealed.clone(), body.until)),
            }),
        }
    }
}
