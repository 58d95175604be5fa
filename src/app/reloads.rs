//! Reads the config, the certificates and the key sets again while the process runs.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;

use crate::config::{Reload, Reloaded, Settings};
use crate::domain::Enforcement;
use crate::error::RefusalKind;
use crate::identity::Identity;
use crate::identity::jwt::{Issuer, Refreshed};
use crate::net::tls::{Tls, TlsReloaded};
use crate::telemetry::{LogLevel, Metrics, Reloadable};

/// The source of the config, and the signal to read it again.
pub struct Reloading {
    /// The file.
    pub file: PathBuf,
    /// The stream of SIGHUP signals.
    pub hangup: tokio::signal::unix::Signal,
}

/// Keeps certificates and key sets up to date.
pub(crate) fn watch(
    identity: &Identity,
    tls: Option<&Arc<Tls>>,
    metrics: &Arc<Metrics>,
) -> Vec<JoinHandle<()>> {
    let mut watchers = Vec::new();
    if let Some(tls) = tls.cloned() {
        let shown = Arc::clone(&tls);
        metrics.show_certificate(move || shown.not_after());
        let metrics = Arc::clone(metrics);
        let observe = move |reloaded| match reloaded {
            TlsReloaded::Applied => {
                metrics.count_reload(Reloadable::Certificate, true);
                tracing::info!("certificate reloaded");
            }
            TlsReloaded::Refused(problems) => {
                metrics.count_reload(Reloadable::Certificate, false);
                for problem in problems {
                    tracing::error!(%problem, "certificate not reloaded");
                }
            }
        };
        watchers.push(tokio::spawn(async move { tls.run(observe).await }));
    }
    metrics.start_refusals(RefusalKind::ALL.iter().map(|kind| kind.as_str()));
    if let Identity::Jwt(jwt) = identity {
        let issuers = jwt.issuers().iter().cloned().enumerate();
        watchers.extend(issuers.map(|(place, issuer)| {
            tokio::spawn(keep_keys(issuer, Reloadable::KeySet(place), Arc::clone(metrics)))
        }));
    }
    watchers
}

/// Keeps an issuer's key set up to date.
async fn keep_keys(issuer: Arc<Issuer>, what: Reloadable, metrics: Arc<Metrics>) {
    let mut is_first = true;
    let observe = |refreshed| match refreshed {
        Refreshed::Loaded { keys, skipped } => {
            if !std::mem::take(&mut is_first) {
                metrics.count_reload(what, true);
            }
            tracing::info!(issuer = issuer.name(), keys, skipped, "key set loaded");
        }
        Refreshed::Failed(error) => {
            is_first = false;
            metrics.count_reload(what, false);
            tracing::warn!(issuer = issuer.name(), %error, "key set not loaded");
        }
    };
    issuer.run(observe).await;
}

/// Keeps the config up to date, with everything that depends on it.
pub(crate) async fn keep_current(
    from: Reloading,
    settings: Arc<ArcSwap<Settings>>,
    log_level: LogLevel,
    metrics: Arc<Metrics>,
) {
    let Reloading { file, mut hangup } = from;
    let asked = async move || {
        if hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    };
    let observe = |reloaded| match reloaded {
        Reloaded::Applied { settings, needs_restart } => {
            metrics.count_reload(Reloadable::Config, true);
            start_series_at_zero(&settings, &metrics);
            log_level.set(settings.telemetry.log.level);
            tracing::info!(config_version = settings.version, "config reloaded");
            for warning in &settings.warnings {
                tracing::warn!(%warning, "config");
            }
            for path in needs_restart {
                tracing::warn!(path, "changed, but needs a restart");
            }
        }
        Reloaded::Refused { problems, needs_restart } => {
            metrics.count_reload(Reloadable::Config, false);
            for problem in problems.sorted() {
                tracing::error!(%problem, "config not reloaded");
            }
            for path in needs_restart {
                tracing::warn!(
                    path,
                    "its old value was judged with the new config: the change needs a restart"
                );
            }
        }
    };
    // The certificates are watched elsewhere: between the changes of two files they need not match.
    Reload::new(file, |_| Vec::new(), settings).run(asked, observe).await;
}

/// Starts the series of every possible decision under these settings at 0.
pub(crate) fn start_series_at_zero(settings: &Settings, metrics: &Metrics) {
    for (tenant, upstream) in settings.routes().take(MOST_EXPECTED) {
        metrics.start_tenant(
            &tenant.name,
            upstream,
            tenant.limits.enforcement == Enforcement::Shadow,
        );
    }
}

/// The most pairs of tenant and upstream whose decisions all start at 0. With more pairs, unused
/// series would take the place of used ones.
pub(super) const MOST_EXPECTED: usize = 1_500;
