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
    pub(crate) fn new(store: RedisStore, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }

    fn start(&self, operation: Operation) -> Stopwatch<'_> {
        Stopwatch {
            operation,
            metrics: &self.metrics,
            span: Span::operation(operation),
            started: Instant::now(),
            fault: Some("cancelled"),
        }
    }
}

struct Stopwatch<'a> {
    operation: Operation,
    metrics: &'a Metrics,
    span: Span,
    started: Instant,
    fault: Option<&'static str>,
}

impl Stopwatch<'_> {
    fn stop<T>(mut self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        self.fault = done.as_ref().err().map(StoreError::as_str);
        done
    }
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        self.span.end(self.fault);
        self.metrics.count_operation(self.operation, self.fault, self.started.elapsed());
    }
}

impl Store for Measured {
    async fn admit(&self, ask: &Ask) -> Result<Answer, StoreError> {
        let stopwatch = self.start(Operation::Admit);
        stopwatch.stop(self.store.admit(ask).await)
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Settled, StoreError> {
        let stopwatch = self.start(Operation::Settle);
        stopwatch.stop(self.store.settle(settlement).await)
    }

    async fn has_record(&self, scope: &Scope, name: &str) -> Result<bool, StoreError> {
        let stopwatch = self.start(Operation::Exists);
        stopwatch.stop(self.store.has_record(scope, name).await)
    }

    async fn levels_of(&self, scope: &Scope) -> Result<StoreLevels, StoreError> {
        let stopwatch = self.start(Operation::Quota);
        stopwatch.stop(self.store.levels_of(scope).await)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let stopwatch = self.start(Operation::Probe);
        stopwatch.stop(self.store.probe().await)
    }
}
