//! What the console shows, as JSON. The schema in docs/status.schema.json is made from these types,
//! and a test holds the two together.

use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::troubles::troubles;
use crate::domain::Name;
use crate::telemetry::{Counted, FailedCall, POINT};

/// The state of one process. Times are RFC 3339 in UTC. Counts of calls and attempts are those of
/// this process alone; levels, queues and calls in flight on an upstream are those of all replicas.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Status {
    /// This program's version.
    pub version: &'static str,
    /// Names the config in force.
    pub config_version: String,
    /// When this was true.
    pub at: String,
    /// How long the process has run.
    pub(crate) uptime_seconds: u64,
    /// Whether callers should be sent here.
    pub ready: bool,
    /// Why they should not; absent while they should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// What is wrong, in words, the worst first; empty where nothing is.
    pub(crate) troubles: Vec<Trouble>,
    /// All calls of this process.
    pub(crate) calls: CallsStatus,
    /// The AWS accounts and regions behind the gateway.
    pub(crate) upstreams: Vec<UpstreamStatus>,
    /// The callers.
    pub(crate) tenants: TenantsStatus,
    /// Where claims and levels live.
    pub(crate) store: StoreStatus,
    /// The AWS credentials of each upstream.
    pub(crate) credentials: Vec<CredentialsStatus>,
    /// The certificates that are served.
    pub(crate) certificates: Vec<CertificateStatus>,
    /// The last calls that were refused or failed, the latest first; 50 at most.
    pub(crate) failed_calls: Vec<FailedCallStatus>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Trouble {
    /// How bad it is.
    pub(crate) severity: Severity,
    /// What is wrong, and what it means.
    pub text: String,
}

/// How bad a trouble is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// Calls fail for a reason that is not their callers'.
    Critical,
    /// Calls are refused by a limit, or something will end soon.
    Warning,
}

/// All calls of this process.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(crate) struct CallsStatus {
    /// Calls in flight.
    pub in_flight: u64,
    /// Calls in flight beyond which load is shed: `server.max_in_flight`.
    pub max_in_flight: u64,
    /// Why calls were refused or failed in the last minute, the most frequent reason first.
    pub(crate) reasons_last_minute: Vec<ReasonCount>,
}

/// How often calls ended for a reason.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ReasonCount {
    /// The reason in `ErrorInfo`; empty where callers left before the answer.
    pub reason: &'static str,
    /// How many calls.
    pub calls: u64,
}

/// One AWS account and region.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct UpstreamStatus {
    /// Its name.
    pub name: String,
    /// Its AWS region.
    pub region: String,
    /// The account's quota, shared by all tenants and replicas.
    pub rate_per_second: f64,
    /// The rate that is in use: the quota, slowed by the factor. Absent where the store cannot be
    /// read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_in_use_per_second: Option<f64>,
    /// 1/16 to 1: what share of the rate is in use, since Connect throttled. Absent where the store
    /// cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// The most calls that the budget starts at once.
    pub burst: u32,
    /// What the budget holds now, in calls: -1 to the burst. Absent where the store cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<f64>,
    /// Calls that wait for their slots. Absent where the store cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// Whether calls are sent at all.
    pub circuit: CircuitState,
    /// How attempts ended.
    pub attempts: AttemptCounts,
}

/// The circuit of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CircuitState {
    /// Calls are sent.
    Closed,
    /// A probe finds out whether Connect is back.
    HalfOpen,
    /// Connect has been failing: nothing is sent.
    Open,
}

/// How attempts at Connect ended.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(crate) struct AttemptCounts {
    /// In the last minute.
    pub last_minute: std::collections::BTreeMap<&'static str, u64>,
    /// Over 15 minutes.
    pub plot: Plot,
}

/// Counts over 15 minutes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Plot {
    /// How much time a point stands for.
    pub(crate) point_seconds: u64,
    /// What went well: admitted and replayed calls, or attempts that were answered with a
    /// participant. 60 points, the oldest first; the last one still grows. Empty: all are 0.
    pub good: Vec<u32>,
    /// What was refused or failed, likewise.
    pub bad: Vec<u32>,
}

/// The callers that are shown.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(crate) struct TenantsStatus {
    /// Only tenants whose name contains this are counted and shown.
    pub filter: String,
    /// Tenants, with each upstream that they may use, that fit the filter.
    pub matching: usize,
    /// Those with most decisions in the last minute, 100 at most.
    pub shown: Vec<TenantStatus>,
}

/// One tenant on one upstream.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct TenantStatus {
    /// The tenant.
    pub tenant: String,
    /// The upstream.
    pub upstream: String,
    /// Its ceiling.
    pub rate_per_second: f64,
    /// The most calls that it may start at once.
    pub burst: u32,
    /// What its bucket holds now, in calls: -1 to the burst. Absent where the store cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<f64>,
    /// Its guaranteed share of the budget.
    pub committed_per_second: f64,
    /// What the share has saved up, in calls. Absent where the store cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Its calls in flight. Absent where the store cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
    /// The most that it may have.
    pub max_in_flight: u32,
    /// Its own limits are decided and counted, and let through.
    pub shadow: bool,
    /// What was decided of its calls.
    pub decisions: DecisionCounts,
}

/// What admission decided.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(crate) struct DecisionCounts {
    /// In the last minute: `admitted`, `replayed`, `reused`, `tenant_rate`, `in_flight`, `budget`.
    pub last_minute: std::collections::BTreeMap<&'static str, u64>,
    /// Over 15 minutes.
    pub plot: Plot,
}

/// The store.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(crate) struct StoreStatus {
    /// `memory` or `redis`.
    pub kind: &'static str,
    /// `standalone`, `sentinel` or `cluster`; absent for `memory`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<&'static str>,
    /// Since when it is lost; absent while it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded_since: Option<String>,
    /// What a loss means: `local` or `reject`; absent for `memory`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_loss: Option<&'static str>,
    /// The most replicas that run; absent unless `on_loss` is `local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// The median of the latest round trips; absent for `memory`, and before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_seconds: Option<f64>,
    /// Results that could not be written to the store.
    pub unsettled: u64,
}

/// The AWS credentials of an upstream.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct CredentialsStatus {
    /// The upstream.
    pub upstream: String,
    /// Whether there are any.
    pub state: CredentialsWord,
    /// When they end; absent where they do not, or there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
}

/// Whether there are credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CredentialsWord {
    /// The first call loads them.
    NotLoaded,
    /// There are.
    Valid,
    /// The last load failed, and earlier ones still serve.
    Renewing,
    /// The last load failed, and there are none that serve.
    Failing,
}

/// A certificate that is served.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct CertificateStatus {
    /// Where: `server.tls.cert_file`.
    pub path: &'static str,
    /// When it ends.
    pub ends: String,
    /// How long until then; negative: since then.
    pub(crate) seconds_left: i64,
}

/// A call that was refused, or failed.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct FailedCallStatus {
    /// When it ended.
    pub at: String,
    /// Its `x-request-id`.
    pub request_id: String,
    /// The caller; absent if it was not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The upstream; absent if the call did not get so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// The gRPC code's name.
    pub code: &'static str,
    /// The reason in `ErrorInfo`; empty where the caller left before the answer.
    pub reason: &'static str,
    /// Why the caller was refused for its identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<&'static str>,
    /// What the caller was told to do.
    pub sentence: &'static str,
}

impl Status {
    /// The same, with what is wrong. `busiest`: the tenants with most decisions, whatever the
    /// filter.
    #[must_use]
    pub(crate) fn judged(mut self, busiest: &[TenantStatus]) -> Self {
        self.troubles = troubles(&self, busiest);
        self
    }
}

impl DecisionCounts {
    /// Of every decision's count.
    #[must_use]
    pub(crate) fn of(counted: &[Counted]) -> Self {
        let last_minute = counted.iter().map(|of| (of.kind, of.last_minute)).collect();
        let is_good = |of: &Counted| matches!(of.kind, "admitted" | "replayed");
        Self { last_minute, plot: Plot::of(counted, is_good) }
    }
}

impl AttemptCounts {
    /// Of every outcome's count.
    #[must_use]
    pub(crate) fn of(counted: &[Counted]) -> Self {
        let last_minute = counted.iter().map(|of| (of.kind, of.last_minute));
        let last_minute = last_minute.filter(|(_, count)| *count > 0).collect();
        Self { last_minute, plot: Plot::of(counted, |of| of.kind == "ok") }
    }
}

impl Plot {
    fn of(counted: &[Counted], is_good: impl Fn(&Counted) -> bool) -> Self {
        let sum = |good: bool| {
            let mut points = Vec::new();
            for of in counted.iter().filter(|of| is_good(of) == good) {
                points.resize(of.points.len(), 0_u32);
                for (sum, count) in points.iter_mut().zip(&of.points) {
                    *sum = sum.saturating_add(*count);
                }
            }
            if points.iter().any(|count| *count > 0) { points } else { Vec::new() }
        };
        Self { point_seconds: POINT.as_secs(), good: sum(true), bad: sum(false) }
    }
}

impl From<FailedCall> for FailedCallStatus {
    fn from(call: FailedCall) -> Self {
        let shown = |name: Option<Name>| name.map(|name| name.to_string());
        Self {
            at: time(call.at),
            request_id: call.request_id,
            tenant: shown(call.tenant),
            upstream: shown(call.upstream),
            code: call.code,
            reason: call.reason,
            refusal: call.refusal,
            sentence: call.sentence,
        }
    }
}

/// RFC 3339, in whole seconds.
#[must_use]
pub(crate) fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// The JSON Schema of [`Status`].
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(Status).to_value();
    if let Value::Object(map) = &mut schema {
        map.insert("title".to_owned(), Value::from("Participant Gateway status"));
    }
    schema
}
