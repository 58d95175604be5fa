//! The page, and `/status`: GET and HEAD only, with headers that let the page load nothing but its
//! own parts.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::BoxFuture;

use super::status::Status;

/// Where the page's figures come from.
pub trait StatusSource: Send + Sync + 'static {
    /// The state of the process now, with the tenants whose name contains the filter.
    fn status(&self, filter: String) -> BoxFuture<'_, Status>;
}

/// The page, its parts and `/status`.
pub fn router(source: Arc<dyn StatusSource>) -> Router {
    let part = |kind: &'static str, text: &'static str| get(async move || guarded(kind, text));
    Router::new()
        .route("/", part("text/html; charset=utf-8", include_str!("page.html")))
        .route("/console.css", part("text/css; charset=utf-8", include_str!("page.css")))
        .route("/console.js", part("text/javascript; charset=utf-8", include_str!("page.js")))
        .route("/console.svg", part("image/svg+xml", include_str!("page.svg")))
        .route("/status", get(status))
        .with_state(source)
}

async fn status(State(source): State<Arc<dyn StatusSource>>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default().as_bytes();
    let filter = form_urlencoded::parse(query).find(|(key, _)| key == "tenant");
    let filter = filter.map(|(_, value)| value.to_lowercase()).unwrap_or_default();
    // A name has no more: docs/design/contract.md, "The config".
    if filter.chars().count() > 63 {
        let text = "tenant: expected at most 63 characters of a tenant's name\n";
        return (StatusCode::BAD_REQUEST, guarded("text/plain; charset=utf-8", text))
            .into_response();
    }
    match serde_json::to_vec(&source.status(filter).await) {
        Ok(body) => guarded("application/json", body),
        Err(error) => {
            tracing::error!(%error, "the status cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn guarded(kind: &'static str, body: impl IntoResponse) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    (headers, body).into_response()
}

const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
