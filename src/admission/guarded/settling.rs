//! Settlement after the answer to the caller: repeated in the background until the lease ends.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument;

use super::health::StoreHealth;
use super::holdings::Hold;
use super::{Inner, Leave};
use crate::admission::{Settled, Settlement, Store, StoreError};

/// One open settlement. It is counted, however its task ends.
struct Open {
    health: Arc<StoreHealth>,
    counts: bool,
}

impl<P: Store, L: Store> Inner<P, L> {
    /// Settles on the primary in the background. A claim that the primary never confirmed may still
    /// stand. It is settled as well, but not counted if that fails.
    pub(super) fn settle_later(
        self: &Arc<Self>,
        settlement: &Settlement,
        held: Hold,
        lease_ends: Instant,
    ) {
        let waiting = self.health.settling.fetch_add(1, Relaxed);
        let open = Open { health: Arc::clone(&self.health), counts: held == Hold::Yes };
        if waiting < SETTLING_MAX {
            let settling = Arc::clone(self).keep_settling(settlement.clone(), lease_ends, open);
            self.tasks.spawn(settling.in_current_span());
        }
    }

    async fn keep_settling(
        self: Arc<Self>,
        settlement: Settlement,
        lease_ends: Instant,
        open: Open,
    ) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let wake = Instant::now() + backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
            if wake >= lease_ends {
                return;
            }
            tokio::time::sleep_until(wake).await;
            backoff = BACKOFF_MAX.min(2 * backoff);
            let Some(leave) = self.guard.enter() else { continue };
            let settled = self.settle_once(leave, &settlement).await;
            tracing::debug!(settled = settled.is_ok(), "settlement in the background");
            if settled.is_ok() {
                return open.settled();
            }
        }
    }

    pub(super) async fn settle_once(
        self: &Arc<Self>,
        leave: Leave,
        settlement: &Settlement,
    ) -> Result<Settled, StoreError> {
        self.ask(leave, Box::pin(self.primary.settle(settlement))).await
    }
}

impl Open {
    fn settled(mut self) {
        self.counts = false;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.health.settling.fetch_sub(1, Relaxed);
        if self.counts {
            self.health.unsettled.fetch_add(1, Relaxed);
        }
    }
}

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The most open settlements. Further ones are given up and counted at once: a store that answers
/// only sometimes must not fill the memory.
const SETTLING_MAX: u64 = 4096;
