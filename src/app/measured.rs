//! Redis, with a clock beside it.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::admission::redis::RedisStore;
use crate::admission::{Answer, Ask, Quota, Scope, Settled, Settlement, Store, StoreError};
use crate::telemetry::{Metrics, Span};

/// Measures every operation. An operation that is given up before it ends, as by a caller that
/// leaves, is measured too.
pub struct Measured {
    store: RedisStore,
    metrics: Arc<Metrics>,
}

impl Measured {
    pub fn new(store: RedisStore, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }

    async fn measure<T>(
        &self,
        script: &'static str,
        operation: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let mut clock = Clock {
            script,
            metrics: &self.metrics,
            span: Span::operation(script),
            started: Instant::now(),
            fault: Some("cancelled"),
        };
        let done = operation.await;
        clock.fault = done.as_ref().err().map(kind);
        done
    }
}

/// One of a closed set, since it becomes a label: what Redis says of itself by its own word, the
/// rest by ours.
fn kind(error: &StoreError) -> &'static str {
    const WORDS: [&str; 13] = [
        "READONLY",
        "OOM",
        "LOADING",
        "BUSY",
        "NOPERM",
        "NOAUTH",
        "WRONGPASS",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "MISCONF",
        "NOREPLICAS",
        "ERR",
    ];
    match error.what.as_str() {
        "timed out" => "timeout",
        "not connected" | "I/O error" => "connection",
        what => WORDS.into_iter().find(|word| *word == what).unwrap_or("_OTHER"),
    }
}

struct Clock<'a> {
    script: &'static str,
    metrics: &'a Metrics,
    span: Span,
    started: Instant,
    fault: Option<&'static str>,
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        self.span.end(self.fault);
        self.metrics.operated(self.script, self.fault, self.started.elapsed());
    }
}

#[async_trait]
impl Store for Measured {
    async fn admit(&self, ask: &Ask) -> Result<Answer, StoreError> {
        self.measure("admit", self.store.admit(ask)).await
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Settled, StoreError> {
        self.measure("settle", self.store.settle(settlement)).await
    }

    async fn quota(&self, scope: &Scope) -> Result<Quota, StoreError> {
        self.measure("quota", self.store.quota(scope)).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.measure("probe", self.store.probe()).await
    }
}
