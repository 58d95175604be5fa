//! Which store holds a granted call: only that store settles it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use crate::admission::Nonce;
use crate::sync::lock;

/// The granted calls of this process, until they are settled or their leases end.
pub(super) struct Holdings<L>(Mutex<Table<L>>);

struct Table<L> {
    held: HashMap<Nonce, Holding<L>>,
    sweep_at: usize,
}

/// The stores on which a call's claims may stand.
pub(super) struct Holding<L> {
    pub(super) primary: Hold,
    pub(super) local: Option<Arc<L>>,
    pub(super) last: Last,
    pub(super) lease_ends: Instant,
}

impl<L> Holding<L> {
    /// Whether the local store gave the last grant.
    pub(super) fn is_local(&self) -> bool {
        self.last == Last::Local
    }
}

impl<L> Clone for Holding<L> {
    fn clone(&self) -> Self {
        Self { local: self.local.clone(), ..*self }
    }
}

/// Whether the primary holds a claim of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hold {
    /// The primary was never asked.
    No,
    /// The primary was asked, and the reply was lost.
    Maybe,
    /// The primary granted.
    Yes,
}

/// The store that gave the last grant. The time of the grant is of that store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Primary,
    Local,
}

impl<L> Default for Holdings<L> {
    fn default() -> Self {
        Self(Mutex::new(Table { held: HashMap::new(), sweep_at: 0 }))
    }
}

impl<L> Holdings<L> {
    pub(super) fn find(&self, nonce: Nonce) -> Option<Holding<L>> {
        self.with(|table| table.held.get(&nonce).cloned())
    }

    pub(super) fn take(&self, nonce: Nonce) -> Option<Holding<L>> {
        self.with(|table| table.held.remove(&nonce))
    }

    pub(super) fn put(&self, nonce: Nonce, holding: Holding<L>) {
        self.with(|table| {
            // A call that is never settled is a bug elsewhere. Its entry must not stay for ever.
            if table.held.len() >= table.sweep_at {
                let now = Instant::now();
                table.held.retain(|_, holding| holding.lease_ends > now);
                table.sweep_at = SWEEP_FROM.max(2 * table.held.len());
            }
            table.held.insert(nonce, holding);
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Table<L>) -> T) -> T {
        change(&mut lock(&self.0))
    }
}

const SWEEP_FROM: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_never_settled_goes_when_its_lease_has_ended() {
        let holdings = Holdings::<()>::default();
        for nonce in 0..20_000 {
            let lease_ends = Instant::now() + Duration::from_secs(5);
            holdings.put(
                Nonce(nonce),
                Holding { primary: Hold::Yes, local: None, last: Last::Primary, lease_ends },
            );
            tokio::time::advance(Duration::from_millis(5)).await;
        }
        let held = holdings.with(|table| table.held.len());
        assert!(held <= 2 * 1000 + SWEEP_FROM, "{held} entries for 1000 live leases");
        assert!(holdings.find(Nonce(19_999)).is_some());
        assert!(holdings.find(Nonce(0)).is_none());
    }
}
