//! Figures of the process and its runtime. Linux has them in `/proc`; on other systems they are
//! absent.

use std::fs;

use opentelemetry::metrics::Meter;
use tokio::runtime::Handle;

use super::names::metric;

/// Registers the gauges and counters.
pub(crate) fn observe(meter: &Meter) {
    meter
        .f64_observable_counter(metric::CPU)
        .with_unit("s")
        .with_description("CPU time of the process.")
        .with_callback(|counter| cpu_s().into_iter().for_each(|value| counter.observe(value, &[])))
        .build();
    meter
        .u64_observable_gauge(metric::RESIDENT)
        .with_unit("By")
        .with_description("Resident memory of the process.")
        .with_callback(|gauge| {
            resident_bytes().into_iter().for_each(|value| gauge.observe(value, &[]))
        })
        .build();
    meter
        .u64_observable_gauge(metric::OPEN_FDS)
        .with_description("Open file descriptors of the process.")
        .with_callback(|gauge| open_fds().into_iter().for_each(|value| gauge.observe(value, &[])))
        .build();
    meter
        .u64_observable_gauge(metric::MAX_FDS)
        .with_description("The most file descriptors that the process may have.")
        .with_callback(|gauge| max_fds().into_iter().for_each(|value| gauge.observe(value, &[])))
        .build();
    let Ok(runtime) = Handle::try_current() else { return };
    let runtime = runtime.metrics();
    let workers = runtime.num_workers() as u64;
    meter
        .u64_observable_gauge(metric::WORKERS)
        .with_description("Worker threads of the runtime.")
        .with_callback(move |gauge| gauge.observe(workers, &[]))
        .build();
    meter
        .u64_observable_gauge(metric::TASKS)
        .with_description("Tasks of the runtime that have not ended.")
        .with_callback(move |gauge| gauge.observe(runtime.num_alive_tasks() as u64, &[]))
        .build();
}

/// proc_pid_stat(5): fields 14 and 15. They are counted from the end of the program's name, which
/// may hold blanks.
fn cpu_s() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_S)
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn open_fds() -> Option<u64> {
    // The listing itself has one descriptor open.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64)
}

fn max_fds() -> Option<u64> {
    rlimit::Resource::NOFILE.get_soft().ok()
}

/// The unit of CPU time in user space on Linux, on every architecture.
const TICKS_PER_S: f64 = 100.0;
