//! Asks the primary store, notices its loss, and finds it again.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::Inner;
use super::guard::{Change, Leave};
use crate::admission::{Store, StoreError};

impl<P: Store, L: Store> Inner<P, L> {
    /// Asks the primary: bounded in time, counted, and reported to the guard.
    pub(super) async fn ask<T>(
        self: &Arc<Self>,
        leave: Leave,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let answer = self.bounded(answer).await;
        match &answer {
            Ok(_) => {
                if let Some(local) = &self.local {
                    local.primary_answered();
                }
                if self.guard.succeeded(leave) == Some(Change::Back) {
                    tracing::info!("store is back");
                }
            }
            Err(error) => self.failed(leave, error),
        }
        answer
    }

    /// Reports a failure to the guard.
    pub(super) fn failed(self: &Arc<Self>, leave: Leave, error: &StoreError) {
        if error.is_passing() {
            return;
        }
        let change = self.guard.failed(leave);
        if change == Some(Change::Lost) {
            let error = error as &dyn Error;
            tracing::warn!(error, on_loss = self.on_loss(), "store lost");
        }
        if let Some(Change::Lost | Change::LostOnTrial) = change {
            self.health.note_lost();
            self.watch();
        }
    }

    pub(super) async fn bounded<T>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.asked.store(true, Relaxed);
        // The primary applies the timeout itself, and learns from it. An earlier cut-off would
        // prevent that.
        let answer = timeout(self.timeout + self.timeout / 5, answer).await;
        let answer = answer.unwrap_or(Err(StoreError::TimedOut))?;
        self.health.reached.store(true, Relaxed);
        Ok(answer)
    }

    /// Probes once a second until the primary answers. Only the opening of the guard starts this
    /// task, so only one runs.
    pub(super) fn watch(self: &Arc<Self>) {
        let inner = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut ticks = interval_at(Instant::now() + PROBE_EVERY, PROBE_EVERY);
            // Each probe is a task of its own. A probe that hangs does not delay the next, and a
            // panic in it does not end the watch.
            let mut probes = JoinSet::new();
            loop {
                let probe = tokio::select! {
                    _ = ticks.tick() => {
                        let Some(inner) = inner.upgrade() else { return };
                        probes.spawn(async move { inner.probe().await.map(|()| inner) });
                        continue;
                    }
                    Some(probe) = probes.join_next() => probe,
                };
                if let Ok(Ok(inner)) = probe {
                    inner.health.note_answer();
                    return inner.guard.try_again();
                }
            }
        });
    }

    /// Watches a primary without any calls: its loss must be known before the next call.
    pub(super) fn watch_idle(self: &Arc<Self>) {
        let inner = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut ticks = interval_at(Instant::now() + IDLE_PROBE_EVERY, IDLE_PROBE_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(inner) = inner.upgrade() else { return };
                if !inner.asked.swap(false, Relaxed)
                    && let Some(leave) = inner.guard.enter()
                {
                    let _counted = inner.ask(leave, inner.primary.probe()).await;
                    inner.asked.store(false, Relaxed);
                }
            }
        });
    }

    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        match self.bounded(self.primary.probe()).await {
            // The store answers, and its calls wait for it.
            Err(error) if error.is_passing() => {
                self.health.reached.store(true, Relaxed);
                Ok(())
            }
            probed => probed,
        }
    }

    pub(super) fn not_reached(&self, error: &StoreError) {
        self.health.note_lost();
        tracing::warn!(
            error = error as &dyn Error,
            on_loss = self.on_loss(),
            "store not reached yet"
        );
    }

    fn on_loss(&self) -> &'static str {
        if self.local.is_some() { "local" } else { "reject" }
    }
}

/// The store is used again within 2 s of its return.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// After three failed probes in a row, an idle primary counts as lost.
const IDLE_PROBE_EVERY: Duration = Duration::from_secs(5);
