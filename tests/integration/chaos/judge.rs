//! What the whole history must show: limits over every span of time, metrics, and that everything
//! came back.

use std::time::{Duration, Instant};

use participant_gateway::proto;
use participant_gateway::proto::quota_service_client::QuotaServiceClient;

use super::house::{House, Limit, REPLICAS, TENANTS, UPSTREAMS};
use super::ledger::{Book, Ledger, Stretch};
use crate::support::of;

/// I4 and I5: over any five seconds, and over the whole run. While no gateway had Redis, the local
/// shares alone are the limits.
pub fn limits_held(book: &mut Book) {
    let mut rows: Vec<(u8, String, Limit, Vec<u32>)> = Vec::new();
    for (upstream, limit) in UPSTREAMS {
        let seconds = book.attempts.get(upstream).cloned().unwrap_or_default();
        rows.push((5, upstream.to_owned(), limit, seconds));
        for (tenant, limit) in TENANTS {
            let key = (tenant.to_owned(), upstream.to_owned());
            let seconds = book.participants.get(&key).cloned().unwrap_or_default();
            rows.push((4, format!("{tenant} on {upstream}"), limit, seconds));
        }
    }
    for (invariant, name, limit, seconds) in rows {
        for window in [5, seconds.len()] {
            for (from, span) in seconds.windows(window.max(1)).enumerate() {
                let sum = f64::from(span.iter().sum::<u32>());
                let most = most(book, limit, from, window);
                if sum > most {
                    let how = format!("{name}: {sum} in {window} s from {from} s, {most} allowed");
                    book.violated(invariant, how);
                    break;
                }
            }
        }
        for gone in book.trouble.gone.clone() {
            let (sum, most) = while_gone(book, limit, &seconds, gone);
            if sum > most {
                let how = format!("{name}: {sum} while Redis was gone, {most} by the local shares");
                book.violated(invariant, how);
            }
        }
    }
}

/// rate × time + burst, for the faults there were. What was admitted may come to Connect two
/// seconds later.
fn most(book: &Book, limit: Limit, from: usize, seconds: usize) -> f64 {
    const LATE: Duration = Duration::from_secs(2);
    let start = (book.begun + Duration::from_secs(from as u64)).checked_sub(LATE);
    let start = start.unwrap_or(book.begun);
    let end = book.begun + Duration::from_secs((from + seconds) as u64);
    let time = (end - start).as_secs_f64();
    let is_within = |at: &Instant| (start..end).contains(at);
    let trouble = &book.trouble;
    let losses = trouble.losses.iter().filter(|at| is_within(at)).count();
    let ends = trouble.ends.iter().filter(|(_, at)| is_within(at)).count();
    let share = |stretch: &Stretch| {
        let lasted = stretch.within(start, end);
        if lasted.is_zero() { 0.0 } else { limit.rate.mul_add(lasted.as_secs_f64(), limit.burst) }
    };
    let local = trouble.local.iter().map(share).sum::<f64>() + limit.burst * ends as f64;
    let whole = limit.rate.mul_add(time, limit.burst * (1 + losses) as f64);
    whole + local / REPLICAS as f64 + 1.0
}

/// What came in the whole seconds after the first one, and what all shares together allow.
fn while_gone(book: &Book, limit: Limit, seconds: &[u32], gone: Stretch) -> (f64, f64) {
    let since = |at: Instant| at.duration_since(book.begun);
    let first = since(gone.from).as_secs() as usize + 2;
    let last = (since(gone.to.unwrap_or(gone.from)).as_secs() as usize).min(seconds.len());
    let Some(span) = seconds.get(first..last) else { return (0.0, 0.0) };
    let burst = (limit.burst / REPLICAS as f64).floor().max(1.0) * REPLICAS as f64;
    let sum = f64::from(span.iter().sum::<u32>());
    (sum, limit.rate.mul_add(span.len() as f64 + 0.5, burst + 1.0))
}

/// I9, of the gateway that is never restarted. A call whose caller left early may have been
/// answered all the same.
pub async fn metrics_are_what_callers_saw(ledger: &Ledger, house: &House) {
    let (seen, left) = {
        let book = ledger.book();
        (book.heard[0].clone(), book.unheard[0] as f64)
    };
    for (code, count) in seen {
        let label = format!("rpc_response_status_code=\"{code}\"");
        let counted =
            house.replicas[0].metric("rpc_server_call_duration_seconds_count", &label).await;
        let seen = count as f64;
        if !(seen..=seen + left).contains(&counted) {
            let how = format!("{code}: {counted} counted, {seen} seen, {left} left");
            ledger.book().violated(9, how);
        }
    }
}

/// Descriptors, tasks and MiB of the gateway that is never restarted.
pub async fn resources(house: &House) -> [f64; 3] {
    let first = &house.replicas[0];
    [
        first.metric("process_open_fds", "").await,
        first.metric("participant_gateway_runtime_alive_tasks", "").await,
        first.metric("process_resident_memory_bytes", "").await / f64::from(1 << 20),
    ]
}

/// I7. A claim that was never settled holds its lease for longer than this waits.
pub async fn everything_was_given_back(
    ledger: &Ledger,
    house: &House,
    callers: usize,
    at_start: &[f64; 3],
) {
    const SETTLED: Duration = Duration::from_secs(3);
    let deadline = Instant::now() + SETTLED;
    loop {
        let held = held(house).await;
        if held.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            ledger.book().violated(7, format!("still held: {held:?}"));
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let [files, tasks, mib] = resources(house).await;
    println!("{files} files, {tasks} tasks, {mib:.0} MiB at the end; {at_start:.0?} at the start");
    // Connections that are kept for the next call: to callers, to Connect, to Redis.
    let kept = (40 + callers) as f64;
    if files > at_start[0] + kept || tasks > at_start[1] + 2.0 * kept {
        ledger.book().violated(7, format!("{files} files, {tasks} tasks: {at_start:?}"));
    }
}

/// Calls in flight, by gateway, and leases, by tenant and upstream.
async fn held(house: &House) -> Vec<String> {
    let mut held = Vec::new();
    for (index, replica) in house.replicas.iter().enumerate() {
        let calls = replica.metric("participant_gateway_in_flight", "").await;
        if calls > 0.0 {
            held.push(format!("{calls} calls in gateway {index}"));
        }
    }
    let addr = house.replicas[0].addr.lock().unwrap().unwrap();
    let mut quotas = QuotaServiceClient::new(crate::support::gateway::channel(addr).await);
    for (tenant, _) in TENANTS {
        for (upstream, _) in UPSTREAMS {
            let ask = proto::GetQuotaRequest { instance_id: upstream.to_owned() };
            let quota = quotas.get_quota(of(tenant, ask)).await.unwrap().into_inner();
            if quota.in_flight > 0 {
                held.push(format!("{} leases of {tenant} on {upstream}", quota.in_flight));
            }
        }
    }
    held
}
