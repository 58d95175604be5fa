//! The health service.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::admin::Readiness;
use crate::proto::{participant_service_server, quota_service_server};

/// The status of the health service, which follows the process's readiness.
pub(crate) struct Health {
    reporter: HealthReporter,
    becoming_ready: Option<JoinHandle<()>>,
}

impl Health {
    /// The process is alive, and not ready.
    pub(crate) async fn starting(reporter: HealthReporter) -> Self {
        report(&reporter, ServingStatus::NotServing).await;
        reporter.set_service_status(LIVENESS, ServingStatus::Serving).await;
        Self { reporter, becoming_ready: None }
    }

    /// From here on, the status follows readiness.
    pub(crate) fn follows(&mut self, readiness: Arc<Readiness>) {
        let reporter = self.reporter.clone();
        self.becoming_ready = Some(tokio::spawn(async move {
            while !readiness.is_ready() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            report(&reporter, ServingStatus::Serving).await;
        }));
    }

    /// Not ready from here on.
    pub(crate) async fn draining(self) {
        if let Some(becoming_ready) = self.becoming_ready {
            becoming_ready.abort();
            let _ = becoming_ready.await;
        }
        report(&self.reporter, ServingStatus::NotServing).await;
    }
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for name in READINESS {
        reporter.set_service_status(name, status).await;
    }
}

/// The names for all services and for each service. They report the same as `/readyz`, for probes
/// that use gRPC.
const READINESS: [&str; 3] =
    ["", participant_service_server::SERVICE_NAME, quota_service_server::SERVICE_NAME];

/// SERVING while the process serves. A store that cannot be reached, or a drain, is no reason for a
/// restart.
const LIVENESS: &str = "liveness";
