//! Every name of a metric and of an attribute, in one table.
//!
//! `rpc.*`, `db.*` and `error.type` are OpenTelemetry's semantic conventions. The gateway's own
//! names begin with `participant_gateway`. In `/metrics` the dots become `_`, and the unit and
//! `_total` stand at the end.

pub(crate) mod metric {
    /// Histogram, s: calls of callers.
    pub(crate) const SERVER_CALL: &str = "rpc.server.call.duration";
    /// Histogram, s: attempts at Connect.
    pub(crate) const CLIENT_CALL: &str = "rpc.client.call.duration";
    /// Histogram, s: operations on Redis.
    pub(crate) const DATABASE: &str = "db.client.operation.duration";
    /// Counter: what admission decided.
    pub(crate) const DECISIONS: &str = "participant_gateway.admission.decisions";
    /// Histogram, s: how long admitted calls waited before they were admitted.
    pub(crate) const WAIT: &str = "participant_gateway.admission.wait";
    /// Counter: admitted calls that left less than a fifth of the tenant's burst.
    pub(crate) const NEAR_LIMIT: &str = "participant_gateway.admission.near_limit";
    /// Gauge: a tenant's limit on an upstream.
    pub(crate) const LIMIT: &str = "participant_gateway.limit";
    /// Gauge: an upstream's budget.
    pub(crate) const UPSTREAM_LIMIT: &str = "participant_gateway.upstream.limit";
    /// Gauge: calls of this process that wait for their slots.
    pub(crate) const QUEUE: &str = "participant_gateway.upstream.queue";
    /// Counter: lines of the log that could not be written.
    pub(crate) const LOG_DROPPED: &str = "participant_gateway.log.dropped";
    /// Counter: calls that were answered with the result of an earlier one.
    pub(crate) const REPLAYS: &str = "participant_gateway.replays";
    /// Counter: attempts at Connect, by how they ended.
    pub(crate) const ATTEMPTS: &str = "participant_gateway.upstream.attempts";
    /// Gauge: the share of the upstream's rate that is in use.
    pub(crate) const FACTOR: &str = "participant_gateway.upstream.budget.factor";
    /// Gauge: 0 closed, 1 half-open, 2 open.
    pub(crate) const CIRCUIT: &str = "participant_gateway.upstream.circuit.state";
    /// Gauge: 1 while the store is lost.
    pub(crate) const DEGRADED: &str = "participant_gateway.store.degraded";
    /// Counter: results that could not be written to the store.
    pub(crate) const UNSETTLED: &str = "participant_gateway.results.unsettled";
    /// Counter: calls answered OVERLOADED.
    pub(crate) const SHED: &str = "participant_gateway.shed";
    /// Counter: connections that were refused before there was a call on them.
    pub(crate) const REFUSED_CONNECTIONS: &str = "participant_gateway.connections.refused";
    /// Gauge: calls in flight in this process.
    pub(crate) const IN_FLIGHT: &str = "participant_gateway.in_flight";
    /// Counter: changed configs, keys and certificates.
    pub(crate) const RELOADS: &str = "participant_gateway.config.reloads";
    /// Gauge: 0 after a refused change, until a good one; else 1.
    pub(crate) const RELOADED: &str = "participant_gateway.config.last_reload_successful";
    /// Counter: callers that were refused for their identity.
    pub(crate) const REFUSALS: &str = "participant_gateway.identity.refusals";
    /// Counter: stored records that were not trusted, and taken over.
    pub(crate) const DISTRUSTED: &str = "participant_gateway.records.distrusted";
    /// Counter: spans and metric points that did not reach the collector.
    pub(crate) const DROPPED: &str = "participant_gateway.telemetry.dropped";
    /// Gauge, s: when the certificate in use ends, in Unix time.
    pub(crate) const CERTIFICATE: &str = "participant_gateway.certificate.expiry";
    /// Gauge: always 1.
    pub(crate) const BUILD: &str = "participant_gateway.build_info";
    /// Counter, s: the process's CPU time. Its name and the next three are those of Prometheus's
    /// own clients.
    pub(crate) const CPU: &str = "process_cpu";
    /// Gauge, bytes: the process's resident memory.
    pub(crate) const RESIDENT: &str = "process_resident_memory";
    /// Gauge: the process's open file descriptors.
    pub(crate) const OPEN_FDS: &str = "process_open_fds";
    /// Gauge: the process's limit of file descriptors.
    pub(crate) const MAX_FDS: &str = "process_max_fds";
    /// Gauge: tasks of the runtime that have not ended.
    pub(crate) const TASKS: &str = "participant_gateway.runtime.alive_tasks";
    /// Gauge: the runtime's worker threads.
    pub(crate) const WORKERS: &str = "participant_gateway.runtime.workers";
}

pub(crate) mod attribute {
    /// `grpc` for callers, `aws-api` for Connect.
    pub(crate) const RPC_SYSTEM: &str = "rpc.system.name";
    /// The full method; `_OTHER` for unknown ones.
    pub(crate) const RPC_METHOD: &str = "rpc.method";
    /// The gRPC code. It is being renamed to `rpc.status_code`: here, then.
    pub(crate) const RPC_STATUS: &str = "rpc.response.status_code";
    /// The kind of the error; absent for a success.
    pub(crate) const ERROR_TYPE: &str = "error.type";
    /// `redis`.
    pub(crate) const DB_SYSTEM: &str = "db.system.name";
    /// `EVALSHA` or `EXISTS`.
    pub(crate) const DB_OPERATION: &str = "db.operation.name";
    /// The script of an `EVALSHA`.
    pub(crate) const DB_PROCEDURE: &str = "db.stored_procedure.name";
    /// A configured tenant; empty if the caller is unknown.
    pub(crate) const TENANT: &str = "tenant";
    /// A configured upstream.
    pub(crate) const UPSTREAM: &str = "upstream";
    /// [`crate::telemetry::Decision`].
    pub(crate) const DECISION: &str = "decision";
    /// `enforce`, or `shadow` for limits that only report.
    pub(crate) const ENFORCEMENT: &str = "enforcement";
    /// `ok`, or the fault.
    pub(crate) const OUTCOME: &str = "outcome";
    /// `success` or `failure`.
    pub(crate) const RESULT: &str = "result";
    /// The reason in the answer.
    pub(crate) const REASON: &str = "reason";
    /// The name of the limit: `rate`, `burst`, `committed`, `in_flight`.
    pub(crate) const LIMIT: &str = "limit";
    /// Why a record was not trusted: `malformed`, `mac`, `sealed`.
    pub(crate) const CAUSE: &str = "cause";
    /// The attribute of spans at Connect in OpenTelemetry's conventions for the AWS SDK.
    pub(crate) const RPC_SYSTEM_OF_CONNECT: &str = "rpc.system";
    /// `Connect`.
    pub(crate) const RPC_SERVICE: &str = "rpc.service";
    /// The host that the caller named.
    pub(crate) const SERVER_ADDRESS: &str = "server.address";
    /// The port that the caller named.
    pub(crate) const SERVER_PORT: &str = "server.port";
    /// The address of the connection's other end.
    pub(crate) const PEER_ADDRESS: &str = "network.peer.address";
    /// AWS's request id.
    pub(crate) const AWS_REQUEST_ID: &str = "aws.request_id";
    /// Connect's region.
    pub(crate) const REGION: &str = "cloud.region";
    /// The status of Connect's answer.
    pub(crate) const HTTP_STATUS: &str = "http.response.status_code";
    /// The number of the attempt in its call, from 1.
    pub(crate) const ATTEMPT: &str = "attempt";
    /// The version of this program.
    pub(crate) const VERSION: &str = "version";
}
