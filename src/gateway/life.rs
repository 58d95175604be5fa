//! What a call lives on.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::flights::Waiting;
use super::levels::Levels;
use crate::admission::{Keys, RecordAsk, Store};
use crate::connect::Attempts;
use crate::telemetry::Metrics;

/// One call's share of the gateway, for as long as it runs.
pub struct Life {
    pub attempts: Arc<Attempts>,
    pub store: Arc<dyn Store>,
    pub keys: Arc<Keys>,
    pub levels: Arc<Levels>,
    pub metrics: Arc<Metrics>,
    pub waiting: Waiting,
    pub record: Option<RecordAsk>,
    /// Cancelled when the caller has left.
    pub left: CancellationToken,
}
