//! Redis, with a measurement of every operation.

use std::sync::Arc;

use tokio::time::Instant;

use crate::admission::redis::RedisStore;
use crate::admission::{Answer, Ask, Scope, Settled, Settlement, Store, StoreError, StoreLevels};
use crate::telemetry::{Metrics, Operation, Span};

/// Measures every operation, even one that its caller gives up before the end.
pub(super) struct Measured {
    store: RedisStore,
    metrics: Arc<Metrics>,
}

impl Measured {
    pub fn new(store: RedisStore, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }

    async fn measure<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let mut stopwatch = Stopwatch {
            operation,
            metrics: &self.metrics,
            span: Span::operation(operation),
            started: Instant::now(),
            fault: Some("cancelled"),
        };
        let done = work.await;
        stopwatch.fault = done.as_ref().err().map(StoreError::as_str);
        done
    }
}

struct Stopwatch<'a> {
    operation: Operation,
    metrics: &'a Metrics,
    span: Span,
    started: Instant,
    fault: Option<&'static str>,
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        self.span.end(self.fault);
        self.metrics.count_operation(self.operation, self.fault, self.started.elapsed());
    }
}

impl Store for Measured {
    async fn admit(&self, ask: &Ask) -> Result<Answer, StoreError> {
        self.measure(Operation::Admit, self.store.admit(ask)).await
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Settled, StoreError> {
        self.measure(Operation::Settle, self.store.settle(settlement)).await
    }

    async fn levels_of(&self, scope: &Scope) -> Result<StoreLevels, StoreError> {
        self.measure(Operation::Quota, self.store.levels_of(scope)).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.measure(Operation::Probe, self.store.probe()).await
    }
}
