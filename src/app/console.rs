//! Gathers the console's figures from the whole process, for each request.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::stores::Stores;
use crate::admin::Readiness;
use crate::admission::redis::Topology;
use crate::admission::{Scope, StoreLevels};
use crate::config::{self, OnLoss, Settings};
use crate::connect::{CredentialsState, Endpoint};
use crate::console::{
    AttemptCounts, CallsStatus, CertificateStatus, CircuitState, CredentialsStatus,
    CredentialsWord, DecisionCounts, FailedCallStatus, MOST_ROWS, Readings, ReasonCount, Status,
    StatusSource, StoreStatus, TenantStatus, TenantsStatus, UpstreamStatus, time,
};
use crate::domain::{Enforcement, Name, Tenant, Upstream};
use crate::net::tls::Tls;
use crate::telemetry::Metrics;

/// Everything that the console looks at.
pub(super) struct Console {
    pub settings: Arc<ArcSwap<Settings>>,
    pub(crate) readiness: Arc<Readiness>,
    pub metrics: Arc<Metrics>,
    pub(crate) endpoints: BTreeMap<Name, Arc<Endpoint>>,
    pub store: Stores,
    pub readings: Readings<Stores>,
    pub tls: Option<Arc<Tls>>,
    pub(crate) permits: Arc<Semaphore>,
    pub max_in_flight: usize,
}

/// A tenant, with an upstream that it may use.
type Row = (Arc<Tenant>, Arc<Upstream>);

/// What the store said, by tenant and upstream.
type Read = HashMap<(Name, Name), StoreLevels>;

impl StatusSource for Console {
    fn status(&self, filter: String) -> BoxFuture<'_, Status> {
        self.gather(filter).boxed()
    }
}

impl Console {
    async fn gather(&self, filter: String) -> Status {
        let settings = self.settings.load_full();
        let (rows, matching) = self.rows(&settings, &filter);
        let scopes = scopes(&settings, &rows);
        let read = self.readings.of(scopes).await;
        let history = self.metrics.history();
        let (now, hindrance) = (SystemTime::now(), self.readiness.hindrance());
        let reasons = history.reasons().into_iter();
        let in_flight = self.max_in_flight.saturating_sub(self.permits.available_permits());
        let upstreams = settings.upstreams.values();
        let of = |(tenant, upstream): &Row, read: &Read| self.tenant(tenant, upstream, read);
        let shown: Vec<_> = rows.iter().map(|row| of(row, &read)).collect();
        let busiest = if filter.is_empty() {
            shown.clone()
        } else {
            let (busiest, _) = self.rows(&settings, "");
            busiest.iter().map(|row| of(row, &Read::new())).collect()
        };
        Status {
            version: env!("CARGO_PKG_VERSION"),
            config_version: settings.version.clone(),
            at: time(now),
            uptime_seconds: history.uptime().as_secs(),
            ready: hindrance.is_none(),
            not_ready: hindrance.map(ToOwned::to_owned),
            troubles: Vec::new(),
            calls: CallsStatus {
                in_flight: in_flight as u64,
                max_in_flight: self.max_in_flight as u64,
                reasons_last_minute: reasons
                    .map(|(reason, calls)| ReasonCount { reason, calls })
                    .collect(),
            },
            upstreams: upstreams.map(|upstream| self.upstream(upstream, &read)).collect(),
            tenants: TenantsStatus { shown, filter, matching },
            store: self.store(&settings),
            credentials: self.credentials(),
            certificates: self.tls.iter().map(|tls| certificate(tls.not_after(), now)).collect(),
            failed_calls: history.failed_calls().into_iter().map(FailedCallStatus::from).collect(),
        }
        .judged(&busiest)
    }

    /// The tenants that are shown, each with an upstream that it may use, and how many fit the
    /// filter. Those with most decisions in the last minute come first. Those that have called of
    /// late come next, and then the others by name.
    fn rows(&self, settings: &Settings, filter: &str) -> (Vec<Row>, usize) {
        let used = self.metrics.history().routes().into_iter().enumerate();
        let used: HashMap<_, _> = used.map(|(place, (route, _))| (route, place)).collect();
        let fits = settings.routes().filter(|(tenant, _)| tenant.name.as_str().contains(filter));
        let place = |(tenant, upstream): (&Tenant, &Name)| {
            let route = (tenant.name.clone(), upstream.clone());
            (used.get(&route).copied().unwrap_or(usize::MAX), route)
        };
        let mut fitting: Vec<_> = fits.map(place).collect();
        let matching = fitting.len();
        if matching > MOST_ROWS {
            fitting.select_nth_unstable(MOST_ROWS);
            fitting.truncate(MOST_ROWS);
        }
        fitting.sort_unstable();
        let found = fitting.into_iter().filter_map(|(_, (tenant, upstream))| {
            Some((settings.tenants.get(&tenant)?, settings.upstreams.get(&upstream)?))
        });
        (
            found
                .map(|(tenant, upstream)| (Arc::clone(tenant), Arc::clone(upstream)))
                .collect(),
            matching,
        )
    }

    fn upstream(&self, upstream: &Upstream, read: &Read) -> UpstreamStatus {
        let Upstream { name, region, rate, burst, .. } = upstream;
        // The readings of all tenants agree on it. Their times differ by less than a second.
        let levels = read.iter().find(|((_, on), _)| on == name).map(|(_, levels)| levels);
        let factor = levels.map(|levels| levels.quota.factor);
        let circuit = self.endpoints.get(name).map_or(0, |endpoint| endpoint.circuit());
        UpstreamStatus {
            name: name.to_string(),
            region: region.clone(),
            rate_per_second: rate.per_second(),
            rate_in_use_per_second: factor.map(|factor| factor * rate.per_second()),
            factor,
            burst: *burst,
            level: levels.map(|levels| levels.budget),
            queue: levels.map(|levels| levels.queued),
            circuit: match circuit {
                0 => CircuitState::Closed,
                1 => CircuitState::HalfOpen,
                _ => CircuitState::Open,
            },
            attempts: AttemptCounts::of(&self.metrics.history().outcomes(name)),
        }
    }

    fn tenant(&self, tenant: &Tenant, upstream: &Upstream, read: &Read) -> TenantStatus {
        let (limits, route) = (&tenant.limits, (tenant.name.clone(), upstream.name.clone()));
        let levels = read.get(&route);
        TenantStatus {
            tenant: tenant.name.to_string(),
            upstream: upstream.name.to_string(),
            rate_per_second: limits.rate.per_second(),
            burst: limits.burst,
            level: levels.map(|levels| levels.tenant),
            committed_per_second: limits.committed.per_second(),
            share: levels.map(|levels| levels.share),
            in_flight: levels.map(|levels| levels.quota.in_flight),
            max_in_flight: limits.max_in_flight,
            shadow: limits.enforcement == Enforcement::Shadow,
            decisions: DecisionCounts::of(&self.metrics.history().decisions(&route.0, &route.1)),
        }
    }

    fn store(&self, settings: &Settings) -> StoreStatus {
        let config::Store::Redis { settings: redis, on_loss, .. } = &settings.store else {
            return StoreStatus { kind: "memory", ..StoreStatus::default() };
        };
        let (on_loss, replicas) = match on_loss {
            OnLoss::Local { replicas } => ("local", Some(replicas.get())),
            OnLoss::Reject => ("reject", None),
        };
        let (since, unsettled) = self.store.losses();
        StoreStatus {
            kind: "redis",
            topology: Some(match redis.topology {
                Topology::Standalone => "standalone",
                Topology::Sentinel { .. } => "sentinel",
                Topology::Cluster => "cluster",
            }),
            degraded_since: since.map(time),
            on_loss: Some(on_loss),
            replicas,
            round_trip_seconds: self.metrics.history().round_trip().map(|took| took.as_secs_f64()),
            unsettled,
        }
    }

    fn credentials(&self) -> Vec<CredentialsStatus> {
        let of = |(upstream, endpoint): (&Name, &Arc<Endpoint>)| {
            let (state, ends) = match endpoint.credentials() {
                CredentialsState::NotLoaded => (CredentialsWord::NotLoaded, None),
                CredentialsState::Valid { end, is_failing: false } => (CredentialsWord::Valid, end),
                CredentialsState::Valid { end, is_failing: true } => {
                    (CredentialsWord::Renewing, end)
                }
                CredentialsState::Failing => (CredentialsWord::Failing, None),
            };
            CredentialsStatus { upstream: upstream.to_string(), state, ends: ends.map(time) }
        };
        self.endpoints.iter().map(of).collect()
    }
}

/// What is asked of the store: the rows' levels, and each upstream's by one of its tenants.
fn scopes(settings: &Settings, rows: &[Row]) -> Vec<Scope> {
    let mut unread: BTreeMap<&Name, &Arc<Upstream>> = settings.upstreams.iter().collect();
    let mut scopes = Vec::with_capacity(rows.len() + unread.len());
    for (tenant, upstream) in rows {
        unread.remove(&upstream.name);
        scopes.push(scope(settings, tenant, upstream));
    }
    for (tenant, upstream) in settings.routes() {
        if unread.is_empty() {
            break;
        }
        scopes.extend(unread.remove(upstream).map(|upstream| scope(settings, tenant, upstream)));
    }
    scopes
}

fn scope(settings: &Settings, tenant: &Tenant, upstream: &Upstream) -> Scope {
    Scope {
        tenant: tenant.name.clone(),
        limits: tenant.limits,
        upstream: upstream.name.clone(),
        rate: upstream.rate,
        burst: upstream.burst,
        committed_burst: settings.committed_burst(&upstream.name),
    }
}

fn certificate(ends: SystemTime, now: SystemTime) -> CertificateStatus {
    let seconds =
        |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let seconds_left = match ends.duration_since(now) {
        Ok(left) => seconds(left),
        Err(gone) => -seconds(gone.duration()),
    };
    CertificateStatus { path: "server.tls.cert_file", ends: time(ends), seconds_left }
}
