//! Every name of a metric and of an attribute, in one table.
//!
//! `rpc.*`, `db.*` and `error.type` are OpenTelemetry's semantic conventions. The gateway's own
//! names begin with `participant_gateway`. In `/metrics` the dots become `_`, and the unit and
//! `_total` stand at the end.

/// Metrics.
pub mod metric {
    /// Histogram, s: calls of callers.
    pub const SERVER_CALL: &str = "rpc.server.call.duration";
    /// Histogram, s: attempts at Connect.
    pub const CLIENT_CALL: &str = "rpc.client.call.duration";
    /// Histogram, s: operations on Redis.
    pub const DATABASE: &str = "db.client.operation.duration";
    /// Counter: what admission decided.
    pub const DECISIONS: &str = "participant_gateway.admission.decisions";
    /// Histogram, s: how long admitted calls waited before they were admitted.
    pub const WAIT: &str = "participant_gateway.admission.wait";
    /// Counter: admitted calls that left less than a fifth of the tenant's burst.
    pub const NEAR_LIMIT: &str = "participant_gateway.admission.near_limit";
    /// Gauge: a tenant's limit on an upstream.
    pub const LIMIT: &str = "participant_gateway.limit";
    /// Gauge: an upstream's budget.
    pub const UPSTREAM_LIMIT: &str = "participant_gateway.upstream.limit";
    /// Gauge: calls of this process that wait for their slots.
    pub const QUEUE: &str = "participant_gateway.upstream.queue";
    /// Counter: lines of the log that could not be written.
    pub const LOG_DROPPED: &str = "participant_gateway.log.dropped";
    /// Counter: calls that were answered with the result of an earlier one.
    pub const REPLAYS: &str = "participant_gateway.replays";
    /// Counter: attempts at Connect, by how they ended.
    pub const ATTEMPTS: &str = "participant_gateway.upstream.attempts";
    /// Gauge: the share of the upstream's rate that is in use.
    pub const FACTOR: &str = "participant_gateway.upstream.budget.factor";
    /// Gauge: 0 closed, 1 half-open, 2 open.
    pub const CIRCUIT: &str = "participant_gateway.upstream.circuit.state";
    /// Gauge: 1 while the store is lost.
    pub const DEGRADED: &str = "participant_gateway.store.degraded";
    /// Counter: results that could not be written to the store.
    pub const UNSETTLED: &str = "participant_gateway.results.unsettled";
    /// Counter: calls answered OVERLOADED.
    pub const SHED: &str = "participant_gateway.shed";
    /// Counter: connections that were refused before there was a call on them.
    pub const REFUSED_CONNECTIONS: &str = "participant_gateway.connections.refused";
    /// Gauge: calls in flight in this process.
    pub const IN_FLIGHT: &str = "participant_gateway.in_flight";
    /// Counter: changed configs, keys and certificates.
    pub const RELOADS: &str = "participant_gateway.config.reloads";
    /// Gauge: 0 after a refused change, until a good one; else 1.
    pub const RELOADED: &str = "participant_gateway.config.last_reload_successful";
    /// Counter: callers that were refused for their identity.
    pub const REFUSALS: &str = "participant_gateway.identity.refusals";
    /// Counter: stored records that were not trusted, and taken over.
    pub const DISTRUSTED: &str = "participant_gateway.records.distrusted";
    /// Counter: spans and metric points that did not reach the collector.
    pub const DROPPED: &str = "participant_gateway.telemetry.dropped";
    /// Gauge, s: when the certificate in use ends, in Unix time.
    pub const CERTIFICATE: &str = "participant_gateway.certificate.expiry";
    /// Gauge: always 1.
    pub const BUILD: &str = "participant_gateway.build_info";
    /// Counter, s: the process's CPU time. Its name and the next three are those of Prometheus's
    /// own clients.
    pub const CPU: &str = "process_cpu";
    /// Gauge, bytes: the process's resident memory.
    pub const RESIDENT: &str = "process_resident_memory";
    /// Gauge: the process's open file descriptors.
    pub const OPEN_FDS: &str = "process_open_fds";
    /// Gauge: the process's limit of file descriptors.
    pub const MAX_FDS: &str = "process_max_fds";
    /// Gauge: tasks of the runtime that have not ended.
    pub const TASKS: &str = "participant_gateway.runtime.alive_tasks";
    /// Gauge: the runtime's worker threads.
    pub const WORKERS: &str = "participant_gateway.runtime.workers";
}

/// Attributes.
pub mod attribute {
    /// `grpc` for callers, `aws-api` for Connect.
    pub const RPC_SYSTEM: &str = "rpc.system.name";
    /// The full method; `_OTHER` for unknown ones.
    pub const RPC_METHOD: &str = "rpc.method";
    /// The gRPC code. It is being renamed to `rpc.status_code`: here, then.
    pub const RPC_STATUS: &str = "rpc.response.status_code";
    /// The kind of the error; absent for a success.
    pub const ERROR_TYPE: &str = "error.type";
    /// `redis`.
    pub const DB_SYSTEM: &str = "db.system.name";
    /// `EVALSHA`.
    pub const DB_OPERATION: &str = "db.operation.name";
    /// The script.
    pub const DB_PROCEDURE: &str = "db.stored_procedure.name";
    /// A configured tenant; empty if the caller is unknown.
    pub const TENANT: &str = "tenant";
    /// A configured upstream.
    pub const UPSTREAM: &str = "upstream";
    /// [`crate::telemetry::Decision`].
    pub const DECISION: &str = "decision";
    /// `enforce`, or `shadow` for limits that only report.
    pub const ENFORCEMENT: &str = "enforcement";
    /// `ok`, or the fault.
    pub const OUTCOME: &str = "outcome";
    /// `success` or `failure`.
    pub const RESULT: &str = "result";
    /// The reason in the answer.
    pub const REASON: &str = "reason";
    /// The name of the limit: `rate`, `burst`, `committed`, `in_flight`.
    pub const LIMIT: &str = "limit";
    /// Why a record was not trusted: `malformed`, `mac`, `sealed`.
    pub const CAUSE: &str = "cause";
    /// The attribute of spans at Connect in OpenTelemetry's conventions for the AWS SDK.
    pub const RPC_SYSTEM_OF_CONNECT: &str = "rpc.system";
    /// `Connect`.
    pub const RPC_SERVICE: &str = "rpc.service";
    /// The host that the caller named.
    pub const SERVER_ADDRESS: &str = "server.address";
    /// The port that the caller named.
    pub const SERVER_PORT: &str = "server.port";
    /// The address of the connection's other end.
    pub const PEER_ADDRESS: &str = "network.peer.address";
    /// AWS's request id.
    pub const AWS_REQUEST_ID: &str = "aws.request_id";
    /// Connect's region.
    pub const REGION: &str = "cloud.region";
    /// The status of Connect's answer.
    pub const HTTP_STATUS: &str = "http.response.status_code";
    /// The number of the attempt in its call, from 1.
    pub const ATTEMPT: &str = "attempt";
    /// The version of this program.
    pub const VERSION: &str = "version";
}
