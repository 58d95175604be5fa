//! The admin port: liveness, readiness, metrics, and the effective config.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::telemetry::Metrics;

/// Whether the gateway is ready for calls.
pub(crate) struct Readiness {
    listening: AtomicBool,
    draining: AtomicBool,
    store: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Readiness {
    /// Ready only after `store` reports that the store is ready, and after the port listens.
    #[must_use]
    pub(crate) fn new(store: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            listening: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            store: Box::new(store),
        }
    }

    /// The gRPC port accepts connections.
    pub(crate) fn note_listening(&self) {
        self.listening.store(true, Ordering::Release);
    }

    /// The process has been told to end.
    pub(crate) fn note_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the gateway is ready for calls now.
    #[must_use]
    pub(crate) fn is_ready(&self) -> bool {
        self.verdict().is_ok()
    }

    /// Why callers should not be sent here now; `None` if they should.
    #[must_use]
    pub(crate) fn hindrance(&self) -> Option<&'static str> {
        self.verdict().err().map(str::trim_end)
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

/// Serves until `ended`. `console`: the page and `/status`, unless they are switched off.
///
/// # Errors
/// If the listener fails.
pub(crate) async fn serve(
    listener: TcpListener,
    readiness: Arc<Readiness>,
    settings: Arc<ArcSwap<Settings>>,
    metrics: Arc<Metrics>,
    console: Option<Router>,
    ended: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "live\n"))
        .route("/readyz", get(readyz))
        .route("/config", get(config))
        .route("/metrics", get(metrics_text))
        .with_state(Admin { readiness, settings, metrics })
        .merge(console.unwrap_or_default());
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

async fn metrics_text(State(admin): State<Admin>, headers: HeaderMap) -> impl IntoResponse {
    let (kind, text) = if wants_openmetrics(&headers) {
        (OPENMETRICS, admin.metrics.openmetrics())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", admin.metrics.text())
    };
    ([(CONTENT_TYPE, kind)], text)
}

/// Whether `Accept` names OpenMetrics, and no other text with more weight (RFC 9110, section
/// 12.5.1).
fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (mut openmetrics, mut plain) = (0.0_f32, 0.0_f32);
    for range in ranges.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        match kind.as_str() {
            "application/openmetrics-text" => openmetrics = openmetrics.max(weight),
            "text/plain" => plain = plain.max(weight),
            _ => {}
        }
    }
    openmetrics > 0.0 && openmetrics >= plain
}

async fn config(State(admin): State<Admin>) -> Json<Value> {
    Json(admin.settings.load().redacted())
}

/// The media type of OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_written_where_the_scraper_prefers_it() {
        let wants = |accept: &str| {
            wants_openmetrics(&HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]))
        };
        // What Prometheus 2 and 3 send.
        assert!(wants(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(wants(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
        ));
        assert!(wants("Application/OpenMetrics-Text; q=0.5"));
        for other in ["", "*/*", "text/plain", "text/html,application/openmetrics-text;q=0"] {
            assert!(!wants(other), "{other}");
        }
        assert!(!wants("text/plain, application/openmetrics-text; q=0.5"));
        assert!(!wants_openmetrics(&HeaderMap::new()));
    }
}
