//! What is wrong, in words: the first thing that a person on call reads.

use super::status::{
    CircuitState, CredentialsWord, Severity, Status, StoreStatus, TenantStatus, Trouble,
    UpstreamStatus,
};

/// Everything that is wrong with this status and these tenants, the worst first.
pub(super) fn troubles(status: &Status, busiest: &[TenantStatus]) -> Vec<Trouble> {
    let mut found = Vec::new();
    if let Some(why) = &status.not_ready {
        found.push(critical(format!("This process is not ready: {why}.")));
    }
    found.extend(of_store(&status.store));
    for upstream in &status.upstreams {
        of_upstream(upstream, &mut found);
    }
    for credentials in &status.credentials {
        let upstream = &credentials.upstream;
        found.extend(match credentials.state {
            CredentialsWord::Failing => Some(critical(format!(
                "Upstream {upstream}: its AWS credentials cannot be loaded. Its calls are refused."
            ))),
            CredentialsWord::Renewing => Some(warning(format!(
                "Upstream {upstream}: its AWS credentials cannot be renewed. The old ones serve until their end."
            ))),
            CredentialsWord::NotLoaded | CredentialsWord::Valid => None,
        });
    }
    for certificate in &status.certificates {
        let (path, ends) = (certificate.path, &certificate.ends);
        if certificate.seconds_left <= 0 {
            found.push(critical(format!("The certificate of {path} ended at {ends}.")));
        } else if certificate.seconds_left < SOON_S {
            found.push(warning(format!("The certificate of {path} ends at {ends}.")));
        }
    }
    found.extend(busiest.iter().flat_map(of_tenant));
    of_reasons(status, &mut found);
    found.sort_by_key(|trouble| trouble.severity);
    let left_out = found.len().saturating_sub(MOST);
    if left_out > 0 {
        found.truncate(MOST);
        found.push(warning(format!("{left_out} more troubles of this kind are not listed.")));
    }
    found
}

fn of_store(store: &StoreStatus) -> Option<Trouble> {
    let since = store.degraded_since.as_ref()?;
    let meaning = match (store.on_loss, store.replicas) {
        (Some("local"), Some(replicas)) => format!(
            "Each replica decides calls by itself, at 1/{replicas} of every limit. Replays are not found."
        ),
        _ => "Calls are refused with STORE_UNAVAILABLE.".to_owned(),
    };
    Some(critical(format!("Redis is lost since {since}. {meaning}")))
}

fn of_upstream(upstream: &UpstreamStatus, found: &mut Vec<Trouble>) {
    let UpstreamStatus { name, rate_per_second: rate, .. } = upstream;
    match upstream.circuit {
        CircuitState::Closed => {}
        CircuitState::Open => found.push(critical(format!(
            "Upstream {name}: its circuit is open, since Amazon Connect has been failing. Calls are refused with CIRCUIT_OPEN."
        ))),
        CircuitState::HalfOpen => found.push(critical(format!(
            "Upstream {name}: its circuit is half-open. The next call finds out whether Amazon Connect is back."
        ))),
    }
    if let Some(factor) = upstream.factor.filter(|factor| *factor < 0.995) {
        let percent = (factor * 100.0).round();
        found.push(warning(format!(
            "Upstream {name}: Amazon Connect throttles. The budget is slowed to {percent} % of {rate}/s."
        )));
    }
    for (outcome, meaning) in [
        ("auth_misconfigured", "Amazon Connect refuses the gateway's own credentials"),
        ("quota_exceeded", "A quota of the account is exceeded, and waiting does not help"),
    ] {
        let count = upstream.attempts.last_minute.get(outcome).copied().unwrap_or_default();
        if count > 0 {
            let times = times(count);
            found.push(critical(format!(
                "Upstream {name}: {meaning} ({times} in the last minute)."
            )));
        }
    }
}

fn of_tenant(of: &TenantStatus) -> Vec<Trouble> {
    let TenantStatus { tenant, upstream, rate_per_second: rate, .. } = of;
    let through = if of.shadow { "let through (shadow)" } else { "refused" };
    let limits = [
        ("tenant_rate", through, format!("its rate of {rate}/s")),
        ("in_flight", through, format!("its limit of {} calls in flight", of.max_in_flight)),
        ("budget", "refused", format!("the budget of upstream {upstream}")),
    ];
    let refused = limits.into_iter().filter_map(|(decision, done, limit)| {
        let calls = of.decisions.last_minute.get(decision).copied().filter(|count| *count > 0)?;
        let s = if calls == 1 { "call was" } else { "calls were" };
        Some(warning(format!(
            "Tenant {tenant} on {upstream}: {calls} {s} {done} in the last minute by {limit}."
        )))
    });
    refused.collect()
}

/// What belongs to no tenant's limits.
fn of_reasons(status: &Status, found: &mut Vec<Trouble>) {
    for reason in &status.calls.reasons_last_minute {
        let text = match reason.reason {
            "OVERLOADED" => "shed, since the gateway is overloaded",
            "GATEWAY_BUG" => "lost to a bug of the gateway: the log has its details",
            "UNAUTHENTICATED" => "refused for their identity",
            "TENANT_UNKNOWN" => "refused, since their callers are no tenants",
            "UPSTREAM_CREDENTIALS_STALE" => "refused, since the gateway's credentials are stale",
            "UPSTREAM_UNREACHABLE" => "lost, since Amazon Connect could not be reached",
            "UPSTREAM_ERROR" => "failed by Amazon Connect itself",
            "UPSTREAM_TIMEOUT" => "given up, since Amazon Connect took too long",
            _ => continue,
        };
        let is_callers = matches!(reason.reason, "UNAUTHENTICATED" | "TENANT_UNKNOWN");
        let times = match reason.calls {
            1 => "1 call was".to_owned(),
            calls => format!("{calls} calls were"),
        };
        let text = format!("{times} {text} ({}), in the last minute.", reason.reason);
        found.push(if is_callers { warning(text) } else { critical(text) });
    }
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

const fn critical(text: String) -> Trouble {
    Trouble { severity: Severity::Critical, text }
}

const fn warning(text: String) -> Trouble {
    Trouble { severity: Severity::Warning, text }
}

/// A certificate that ends within this time is a trouble: 14 days.
const SOON_S: i64 = 14 * 86_400;

/// The most troubles that are listed: a person on call reads no more.
const MOST: usize = 12;

#[cfg(test)]
mod tests;
