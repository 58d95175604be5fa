//! The counters and histograms. Labels come only from the config and from closed sets, never from a
//! caller.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{
    BoundCounter, BoundHistogram, Counter, Histogram, Meter, MeterProvider,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{Aggregation, Instrument, SdkMeterProvider, Stream};
use prometheus::{Registry, TextEncoder};

use super::bound::Bound;
use super::names::{attribute as at, metric};
use super::openmetrics::{Durations, Labels, OpenMetrics};
use super::{History, Operation, log, process};
use crate::call::{Disposition, Ended, Notes};
use crate::domain::Name;
use crate::sync::lock;

/// The instruments of one gateway.
pub struct Metrics {
    registry: Registry,
    pub(super) meter: Meter,
    server: Histogram<f64>,
    client: Histogram<f64>,
    database: Histogram<f64>,
    decisions: Counter<u64>,
    near_limit: Counter<u64>,
    replays: Counter<u64>,
    attempts: Counter<u64>,
    factors: Factors,
    shed: Counter<u64>,
    reloads: Counter<u64>,
    refusals: Counter<u64>,
    refused_connections: Counter<u64>,
    distrusted: Counter<u64>,
    dropped: Arc<AtomicU64>,
    waits: Histogram<f64>,
    unmended: Arc<Mutex<BTreeSet<Reloadable>>>,
    series: Series,
    history: History,
    openmetrics: OpenMetrics,
}

/// The counts of every call.
#[derive(Default)]
struct Series {
    /// By method, code and tenant.
    server: Bound<(&'static str, &'static str, Option<Name>), Calls>,
    /// By upstream and fault.
    client: Bound<(Name, Option<&'static str>), Attempts>,
    /// By operation and fault.
    database: Bound<(&'static str, Option<&'static str>), BoundHistogram<f64>>,
    /// By tenant, upstream, disposition, and whether it applied only in shadow.
    decisions: Bound<(Name, Name, Disposition, bool), BoundCounter<u64>>,
    /// By tenant and upstream.
    near_limit: Bound<(Name, Name), BoundCounter<u64>>,
    /// By upstream.
    waits: Bound<Name, BoundHistogram<f64>>,
}

/// How long calls take: for OpenTelemetry, and for OpenMetrics.
type Calls = (BoundHistogram<f64>, Durations);

/// How long attempts take, and their number.
type Attempts = (BoundHistogram<f64>, BoundCounter<u64>);

/// The last factor that the store reported for each upstream, and when.
type Factors = Arc<Mutex<BTreeMap<Name, (f64, Instant)>>>;

/// The inputs that are read again while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reloadable {
    /// The config, and the key files it names.
    Config,
    /// The certificate, its key, and the authority of clients.
    Certificate,
    /// The key set that verifies bearer tokens, by its position in the config.
    KeySet(usize),
}

impl Metrics {
    /// The instruments. `/metrics` reads them, and a reader pushes them if there is one. They end
    /// with the provider.
    ///
    /// # Errors
    /// If the exporter cannot be built: a bug.
    pub(super) fn new<R: MetricReader>(
        resource: Resource,
        push: Option<R>,
        dropped: Arc<AtomicU64>,
    ) -> Result<(Self, SdkMeterProvider), Box<dyn std::error::Error + Send + Sync>> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            // There is only one scope, so its labels have no use.
            .scope_info_enabled(false)
            .build()?;
        let mut provider =
            SdkMeterProvider::builder().with_resource(resource).with_reader(exporter);
        if let Some(push) = push {
            provider = provider.with_reader(push);
        }
        let provider = provider.with_view(stream).build();
        let meter = provider.meter("participant_gateway");
        let seconds =
            |name, text| meter.f64_histogram(name).with_unit("s").with_description(text).build();
        let counter = |name, text| meter.u64_counter(name).with_description(text).build();
        let metrics = Self {
            server: seconds(metric::SERVER_CALL, "Calls of callers."),
            client: seconds(metric::CLIENT_CALL, "Attempts at Connect."),
            database: seconds(metric::DATABASE, "Operations on Redis."),
            decisions: counter(metric::DECISIONS, "Decisions of admission."),
            near_limit: counter(
                metric::NEAR_LIMIT,
                "Admitted calls that left less than a fifth of the tenant's burst.",
            ),
            replays: counter(
                metric::REPLAYS,
                "Calls that were answered with the result of an earlier one.",
            ),
            attempts: counter(metric::ATTEMPTS, "Attempts at Connect, by how they ended."),
            factors: Factors::default(),
            shed: counter(metric::SHED, "Calls answered OVERLOADED."),
            reloads: counter(metric::RELOADS, "Changed configs, keys and certificates."),
            refusals: counter(
                metric::REFUSALS,
                "Calls that were refused for the identity of their caller.",
            ),
            refused_connections: counter(
                metric::REFUSED_CONNECTIONS,
                "Connections that were refused before there was a call on them.",
            ),
            distrusted: counter(metric::DISTRUSTED, "Stored records that were not trusted."),
            waits: seconds(
                metric::WAIT,
                "How long admitted calls waited for a slot, or for a duplicate elsewhere.",
            ),
            unmended: Arc::default(),
            series: Series::default(),
            history: History::new(),
            openmetrics: OpenMetrics::new(registry.clone()),
            registry,
            meter,
            dropped,
        };
        metrics.start();
        Ok((metrics, provider))
    }

    /// Starts rare counters at 0, so that their first event is an increase.
    fn start(&self) {
        self.replays.add(0, &[]);
        self.shed.add(0, &[]);
        for result in ["success", "failure"] {
            self.reloads.add(0, &[KeyValue::new(at::RESULT, result)]);
        }
        for cause in Distrust::ALL {
            self.distrusted.add(0, &[KeyValue::new(at::CAUSE, cause.as_str())]);
        }
        let factors = Arc::clone(&self.factors);
        self.meter
            .f64_observable_gauge(metric::FACTOR)
            .with_description("The share of the upstream's rate that is in use.")
            .with_callback(move |gauge| {
                for (upstream, (factor, said)) in lock(&factors).iter() {
                    // The factor recovers with time, also without any call.
                    let now = (factor + said.elapsed().as_secs_f64() / 16.0).min(1.0);
                    gauge.observe(now, &[KeyValue::new(at::UPSTREAM, upstream.to_string())]);
                }
            })
            .build();
        let unmended = Arc::clone(&self.unmended);
        self.gauged(metric::RELOADED, "0 after a refused change, until a good one.", move || {
            u64::from(lock(&unmended).is_empty())
        });
        let dropped = Arc::clone(&self.dropped);
        self.counted(
            metric::DROPPED,
            "Spans and metric points that did not reach the collector.",
            move || dropped.load(Relaxed),
        );
        self.counted(
            metric::LOG_DROPPED,
            "Lines of the log that could not be written.",
            log::dropped,
        );
        self.meter
            .u64_observable_gauge(metric::BUILD)
            .with_description("Always 1.")
            .with_callback(|gauge| {
                gauge.observe(1, &[KeyValue::new(at::VERSION, env!("CARGO_PKG_VERSION"))])
            })
            .build();
        process::observe(&self.meter);
    }

    /// The metrics in Prometheus's text format.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }

    /// The metrics in OpenMetrics's text format.
    #[must_use]
    pub(crate) fn openmetrics(&self) -> String {
        self.openmetrics.text().unwrap_or_else(|error| {
            tracing::error!(%error, "metrics cannot be written");
            String::new()
        })
    }

    /// The recent history of calls.
    #[must_use]
    pub(crate) const fn history(&self) -> &History {
        &self.history
    }

    /// Notes a caller's call that was refused or failed.
    pub(crate) fn note_failed(&self, notes: &Notes, ended: &Ended) {
        self.history.note_failed(notes, ended);
    }

    /// Counts a call that has ended. `fault`: its code means a fault of the gateway or of Connect.
    /// `trace`: its trace, if it is sampled.
    pub(crate) fn count_call(
        &self,
        method: &'static str,
        code: &'static str,
        fault: bool,
        tenant: Option<&Name>,
        took: Duration,
        trace: Option<String>,
    ) {
        let series = self.series.server.of((method, code, tenant.cloned()), || {
            let tenant_of = tenant.cloned();
            let tenant = tenant.map_or_else(String::new, ToString::to_string);
            let mut labels = vec![
                KeyValue::new(at::RPC_SYSTEM, "grpc"),
                KeyValue::new(at::RPC_METHOD, method),
                KeyValue::new(at::RPC_STATUS, code),
                KeyValue::new(at::TENANT, tenant),
            ];
            labels.extend(fault.then(|| KeyValue::new(at::ERROR_TYPE, code)));
            let is_fault = fault;
            let key = Labels { method, code, is_fault, tenant: tenant_of };
            (self.server.bind(&labels), self.openmetrics.durations(key))
        });
        series.0.record(took.as_secs_f64());
        series.1.record(took, trace);
    }

    /// Counts an attempt at Connect that has ended, with its fault if it failed.
    pub(crate) fn count_attempt(
        &self,
        upstream: &Name,
        fault: Option<&'static str>,
        took: Duration,
    ) {
        let series = self.series.client.of((upstream.clone(), fault), || {
            let upstream = KeyValue::new(at::UPSTREAM, upstream.to_string());
            let outcome = KeyValue::new(at::OUTCOME, fault.unwrap_or(OK));
            let mut labels = vec![
                KeyValue::new(at::RPC_SYSTEM, "aws-api"),
                KeyValue::new(at::RPC_METHOD, "CreateParticipant"),
                upstream.clone(),
            ];
            labels.extend(fault.map(|fault| KeyValue::new(at::ERROR_TYPE, fault)));
            (self.client.bind(&labels), self.attempts.bind(&[upstream, outcome]))
        });
        series.0.record(took.as_secs_f64());
        series.1.add(1);
        self.history.note_attempt(upstream, fault.unwrap_or(OK));
    }

    /// Counts an operation on Redis that has ended, with its error if it failed.
    pub(crate) fn count_operation(
        &self,
        operation: Operation,
        fault: Option<&'static str>,
        took: Duration,
    ) {
        let series = self.series.database.of((operation.as_str(), fault), || {
            let mut labels = operation.attributes();
            labels.extend(fault.map(|fault| KeyValue::new(at::ERROR_TYPE, fault)));
            self.database.bind(&labels)
        });
        series.record(took.as_secs_f64());
        if fault.is_none() {
            self.history.note_round_trip(took);
        }
    }

    /// Counts a decision of admission.
    pub(crate) fn count_disposition(
        &self,
        tenant: &Name,
        upstream: &Name,
        disposition: Disposition,
        shadow: bool,
    ) {
        if disposition == Disposition::Replayed {
            self.replays.add(1, &[]);
        }
        let key = (tenant.clone(), upstream.clone(), disposition, shadow);
        let labels = || self.decisions.bind(&decided(tenant, upstream, disposition, shadow));
        self.series.decisions.of(key, labels).add(1);
        self.history.note_decision(tenant, upstream, disposition);
    }

    /// Counts an admitted call that left less than a fifth of the tenant's burst.
    pub(crate) fn count_near_limit(&self, tenant: &Name, upstream: &Name) {
        let key = (tenant.clone(), upstream.clone());
        let labels = || self.near_limit.bind(&of(tenant, upstream));
        self.series.near_limit.of(key, labels).add(1);
    }

    /// Records the wait of an admitted call.
    pub(crate) fn record_wait(&self, upstream: &Name, wait: Duration) {
        let labels = || self.waits.bind(&[KeyValue::new(at::UPSTREAM, upstream.to_string())]);
        self.series.waits.of(upstream.clone(), labels).record(wait.as_secs_f64());
    }

    /// Starts every decision on the tenant's calls to the upstream at 0. `shadow`: its own limits
    /// only report.
    pub(crate) fn start_tenant(&self, tenant: &Name, upstream: &Name, shadow: bool) {
        self.near_limit.add(0, &of(tenant, upstream));
        for disposition in Disposition::ALL {
            let shadow = shadow && disposition.may_be_shadowed();
            self.decisions.add(0, &decided(tenant, upstream, disposition, shadow));
        }
    }

    /// Notes the upstream's factor, as the store reported it.
    pub(crate) fn note_factor(&self, upstream: &Name, factor: f64) {
        let mut factors = lock(&self.factors);
        factors.insert(upstream.clone(), (factor, Instant::now()));
    }

    /// Counts a stored record that was not trusted.
    pub(crate) fn count_distrusted(&self, cause: Distrust) {
        self.distrusted.add(1, &[KeyValue::new(at::CAUSE, cause.as_str())]);
    }

    /// Counts a call that was shed.
    pub(crate) fn count_shed(&self) {
        self.shed.add(1, &[]);
    }

    /// Counts a changed config, key or certificate: applied, or refused.
    pub(crate) fn count_reload(&self, what: Reloadable, good: bool) {
        let mut unmended = lock(&self.unmended);
        if good {
            unmended.remove(&what);
        } else {
            unmended.insert(what);
        }
        drop(unmended);
        self.reloads
            .add(1, &[KeyValue::new(at::RESULT, if good { "success" } else { "failure" })]);
    }

    /// Starts every refusal of a caller's identity at 0.
    pub(crate) fn start_refusals(&self, kinds: impl IntoIterator<Item = &'static str>) {
        for kind in kinds {
            self.refusals.add(0, &[KeyValue::new(at::REASON, kind)]);
        }
    }

    /// Counts a caller that was refused for its identity.
    pub(crate) fn count_refusal(&self, reason: &'static str) {
        self.refusals.add(1, &[KeyValue::new(at::REASON, reason)]);
    }

    /// Starts every refusal of a connection at 0.
    pub(crate) fn start_refused_connections(
        &self,
        reasons: impl IntoIterator<Item = &'static str>,
    ) {
        for reason in reasons {
            self.refused_connections.add(0, &[KeyValue::new(at::REASON, reason)]);
        }
    }

    /// Counts a connection that was refused before its first call.
    pub(crate) fn count_refused_connection(&self, reason: &'static str) {
        self.refused_connections.add(1, &[KeyValue::new(at::REASON, reason)]);
    }

    /// Starts an upstream's series: every outcome of `outcomes` at 0, and a factor of 1.
    pub(crate) fn start_upstream(
        &self,
        upstream: &Name,
        outcomes: impl IntoIterator<Item = &'static str>,
    ) {
        self.note_factor(upstream, 1.0);
        let outcomes: Vec<_> = [OK].into_iter().chain(outcomes).collect();
        self.history.start_upstream(upstream, &outcomes);
        let upstream = KeyValue::new(at::UPSTREAM, upstream.to_string());
        for outcome in outcomes {
            self.attempts.add(0, &[upstream.clone(), KeyValue::new(at::OUTCOME, outcome)]);
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The buckets, and a bound on the series: the library's own bound is too low for a large config.
fn stream(instrument: &Instrument) -> Option<Stream> {
    let buckets = |boundaries: &[f64]| Aggregation::ExplicitBucketHistogram {
        boundaries: boundaries.to_vec(),
        record_min_max: false,
    };
    let stream = Stream::builder();
    let stream = match instrument.name() {
        metric::SERVER_CALL => {
            stream.with_aggregation(buckets(&CALLS)).with_cardinality_limit(TENANT_SERIES)
        }
        metric::CLIENT_CALL | metric::WAIT => stream.with_aggregation(buckets(&CALLS)),
        metric::DATABASE => stream.with_aggregation(buckets(&OPERATIONS)),
        metric::DECISIONS => stream.with_cardinality_limit(TENANT_SERIES),
        _ => return None,
    };
    stream.build().ok()
}

/// Why a stored record was not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distrust {
    /// It was not of the form that a gateway writes.
    Malformed,
    /// Its MAC did not fit its content.
    Mac,
    /// Its sealed result could not be opened: a sealing key was dropped too early.
    Sealed,
}

impl Distrust {
    const ALL: [Self; 3] = [Self::Malformed, Self::Mac, Self::Sealed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Mac => "mac",
            Self::Sealed => "sealed",
        }
    }
}

pub(super) fn of(tenant: &Name, upstream: &Name) -> [KeyValue; 2] {
    [
        KeyValue::new(at::TENANT, tenant.to_string()),
        KeyValue::new(at::UPSTREAM, upstream.to_string()),
    ]
}

fn decided(
    tenant: &Name,
    upstream: &Name,
    disposition: Disposition,
    shadow: bool,
) -> [KeyValue; 4] {
    [
        KeyValue::new(at::TENANT, tenant.to_string()),
        KeyValue::new(at::UPSTREAM, upstream.to_string()),
        KeyValue::new(at::DECISION, disposition.as_str()),
        KeyValue::new(at::ENFORCEMENT, if shadow { "shadow" } else { "enforce" }),
    ]
}

/// The buckets of a call's duration, in seconds.
pub(super) const CALLS: [f64; 12] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const OPERATIONS: [f64; 8] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0];

/// The outcome of an attempt that has not failed.
const OK: &str = "ok";

/// The most series of a metric with tenants. No real config has so many, but the number is bounded.
pub(super) const TENANT_SERIES: usize = 20_000;
