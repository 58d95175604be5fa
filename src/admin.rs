//! The port that operators use: liveness, readiness, metrics, the effective config.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::telemetry::Metrics;

/// Whether callers should be sent here.
pub struct Readiness {
    listening: AtomicBool,
    draining: AtomicBool,
    store: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Readiness {
    /// Not ready before `store` says that the store is, nor before the port listens.
    #[must_use]
    pub fn new(store: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            listening: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            store: Box::new(store),
        }
    }

    /// The gRPC port accepts connections.
    pub fn note_listening(&self) {
        self.listening.store(true, Ordering::Release);
    }

    /// The process has been told to end.
    pub fn note_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether callers should be sent here now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.verdict().is_ok()
    }

    fn verdict(&self) -> Result<&'static str, &'static str> {
        if self.draining.load(Ordering::Acquire) {
            Err("draining\n")
        } else if !self.listening.load(Ordering::Acquire) {
            Err("starting\n")
        } else if !(self.store)() {
            Err("waiting for the store\n")
        } else {
            Ok("ready\n")
        }
    }
}

#[derive(Clone)]
struct Admin {
    readiness: Arc<Readiness>,
    settings: Arc<ArcSwap<Settings>>,
    metrics: Arc<Metrics>,
}

/// Serves until `ended`.
///
/// # Errors
/// Where the listener fails.
pub async fn serve(
    listener: TcpListener,
    readiness: Arc<Readiness>,
    settings: Arc<ArcSwap<Settings>>,
    metrics: Arc<Metrics>,
    ended: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "live\n"))
        .route("/readyz", get(readyz))
        .route("/config", get(config))
        .route("/metrics", get(metrics_text))
        .with_state(Admin { readiness, settings, metrics });
    axum::serve(listener, router)
        .with_graceful_shutdown(ended.cancelled_owned())
        .await
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    match admin.readiness.verdict() {
        Ok(ready) => (StatusCode::OK, ready),
        Err(not) => (StatusCode::SERVICE_UNAVAILABLE, not),
    }
}

async fn metrics_text(State(admin): State<Admin>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.text())
}

async fn config(State(admin): State<Admin>) -> Json<Value> {
    Json(admin.settings.load().redacted())
}
