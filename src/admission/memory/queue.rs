//! The queue of spare calls for their slots: start-time fair queueing between the tenants that
//! wait.
//!
//! Each waiting call of a tenant has a tag. The first has the tag after the tenant's last start, or
//! the largest started tag if that is larger. Each further call has the next tag. The smallest tag
//! starts first. A tenant with the most calls therefore does not get the most slots:
//! docs/design/admission.md, "The queue".

use std::collections::HashMap;

use crate::admission::Nonce;
use crate::domain::Name;
use crate::error::Limit;

/// The queue of one upstream, in order of arrival.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    pub(super) waiting: Vec<Waiter>,
    /// By tenant: the tag of its last start, while any call waits.
    pub(super) starts: HashMap<Name, u64>,
    /// The largest tag that has started, while any call waits.
    pub(super) served: u64,
}

/// A call that waits, or a further attempt of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Who<'a> {
    pub nonce: Nonce,
    pub tenant: &'a Name,
    pub is_attempt: bool,
}

/// The resources that a queued call holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It has paid at its tenant's ceiling, and has a place in flight.
    Call,
    /// It holds the same, but is committed: it waits for the next token, and not for other calls.
    Committed,
    /// A further attempt of a granted call.
    Attempt,
    /// Shadow enforcement let it exceed this limit, so it holds nothing.
    Shadowed(Limit),
}

impl Kind {
    /// Whether the call has paid at its tenant's ceiling.
    pub(crate) fn has_paid(self) -> bool {
        matches!(self, Self::Call | Self::Committed)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Waiter {
    pub nonce: Nonce,
    tenant: Name,
    pub kind: Kind,
    /// When the call is dropped unless it asks again, in µs of m.
    pub dropped: u64,
}

/// The turn of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    tag: u64,
    /// The number of calls that start before it.
    pub ahead: usize,
    /// What it holds, if it already waits.
    pub kind: Option<Kind>,
}

impl Queue {
    /// Drops the calls that have not asked again in time. The last starts are forgotten when the
    /// queue is empty.
    pub(crate) fn purge(&mut self, m: u64) {
        self.waiting.retain(|waiter| waiter.dropped > m);
        if self.waiting.is_empty() {
            self.starts.clear();
            self.served = 0;
        }
    }

    /// The number of calls that wait, without those that have not asked again in time.
    pub(crate) fn count(&self, m: u64) -> u32 {
        self.waiting.iter().filter(|waiter| waiter.dropped > m).count() as u32
    }

    /// The number of the tenant's queued calls that have paid.
    pub(crate) fn paid(&self, tenant: &Name) -> u32 {
        let paid = |waiter: &&Waiter| waiter.tenant == *tenant && waiter.kind.has_paid();
        self.waiting.iter().filter(paid).count() as u32
    }

    /// The call's turn, in its place or in the one that it would get.
    pub(crate) fn turn(&self, who: Who<'_>) -> Turn {
        let (tags, tenant) = (self.tags(), who.tenant);
        let own = self.position(who);
        let spare = |waiter: &&Waiter| waiter.tenant == *tenant && waiter.kind != Kind::Committed;
        let next = || self.base(tenant) + self.waiting.iter().filter(spare).count() as u64;
        let tag = own.and_then(|own| tags[own]).unwrap_or_else(next);
        let position = own.unwrap_or(self.waiting.len());
        let before = |(at, other): &(usize, &Option<u64>)| {
            let is_before = |other| other < tag || (other == tag && *at < position);
            Some(*at) != own && other.is_some_and(is_before)
        };
        let ahead = tags.iter().enumerate().filter(before).count();
        Turn { tag, ahead, kind: own.map(|own| self.waiting[own].kind) }
    }

    /// Whether no call waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether one more call may join.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_QUEUE
    }

    /// Takes a place, or keeps the call's present one.
    pub(crate) fn join(&mut self, who: Who<'_>, kind: Kind, dropped: u64) {
        let Who { nonce, tenant, .. } = who;
        match self.position(who) {
            Some(own) => self.waiting[own].dropped = dropped,
            None => self.waiting.push(Waiter { nonce, tenant: tenant.clone(), kind, dropped }),
        }
    }

    /// Gives the place up. Returns what the call held there.
    pub(crate) fn leave(&mut self, who: Who<'_>) -> Option<Kind> {
        let own = self.position(who)?;
        Some(self.waiting.remove(own).kind)
    }

    /// Notes that a spare call starts at its turn. It has left the queue.
    pub(crate) fn started(&mut self, tenant: &Name, turn: Turn) {
        if !self.waiting.is_empty() {
            self.starts.insert(tenant.clone(), turn.tag);
            self.served = self.served.max(turn.tag);
        }
    }

    /// The tag of each waiting call, in order; a committed call has none.
    fn tags(&self) -> Vec<Option<u64>> {
        let mut next: HashMap<&Name, u64> = HashMap::new();
        let mut tags = Vec::with_capacity(self.waiting.len());
        for waiter in &self.waiting {
            if waiter.kind == Kind::Committed {
                tags.push(None);
                continue;
            }
            let tag = next.entry(&waiter.tenant).or_insert_with(|| self.base(&waiter.tenant));
            tags.push(Some(*tag));
            *tag += 1;
        }
        tags
    }

    fn base(&self, tenant: &Name) -> u64 {
        self.starts.get(tenant).map_or(self.served, |start| self.served.max(start + 1))
    }

    fn position(&self, who: Who<'_>) -> Option<usize> {
        self.waiting.iter().position(|waiter| {
            let is_attempt = waiter.kind == Kind::Attempt;
            let is_own = waiter.nonce == who.nonce && waiter.tenant == *who.tenant;
            is_own && is_attempt == who.is_attempt
        })
    }
}

/// The most calls that may queue for one upstream.
const MAX_QUEUE: usize = 1024;
