//! When the calls of an open loop are due.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

/// The times of a Poisson process of this rate, each told when it has come, until `end`. A thread of
/// its own sleeps, since the runtime's timer is exact to a millisecond only.
pub fn arrivals(rate: f64, end: Instant) -> UnboundedReceiver<Instant> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        // The same times in each run.
        let mut random = fastrand::Rng::with_seed(7);
        let mut due = Instant::now();
        loop {
            due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
            if due >= end {
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "the thread does nothing else")]
            if let Some(wait) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(wait);
            }
            if sender.send(due).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Makes the kernel wake sleeping threads on time, and not up to 50 µs later. Threads inherit the
/// setting. If the kernel refuses it, calls are late, and the report says by how much.
pub fn sleep_exactly() {
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
}
