//! One upstream's clock, factor and budget. The same arithmetic as `redis/common.lua`, in the same
//! order.

use super::super::figures::TOLERANCE;

/// The account's token bucket, and the clock that everything on this upstream is measured by.
#[derive(Debug)]
pub(super) struct Budget {
    /// The upstream's clock in µs: it goes forward by what `last` went forward, and stands still
    /// where that steps back.
    pub m: u64,
    last: u64,
    /// V.
    pub level: f64,
    /// ∫f dm in seconds: what levels refill with, so that a long gap is not refilled at today's f.
    pub phi: f64,
    /// f.
    pub factor: f64,
    halved: Option<u64>,
    /// When the last queued call starts, in µs of m.
    tail: f64,
}

/// The shape of an upstream's budget under the present config.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub rate: f64,
    pub burst: f64,
    pub reserved: f64,
}

/// What a call gets of the budget.
#[derive(Debug, PartialEq)]
pub(super) enum Start {
    Now,
    /// In this many seconds, by asking again.
    Later(f64),
    /// Not within the longest wait, which is exceeded by this many seconds.
    Never(f64),
}

impl Budget {
    pub fn new(now: u64, burst: f64) -> Self {
        Self { m: now, last: now, level: burst, phi: 0.0, factor: 1.0, halved: None, tail: 0.0 }
    }

    /// Brings everything up to date, then halves the factor where Connect throttled an attempt
    /// granted since.
    pub fn advance(&mut self, now: u64, shape: Shape, throttled: Option<u64>) {
        let gone = now.saturating_sub(self.last);
        self.m += gone;
        self.last = now;
        let dt = gone as f64 / 1e6;
        let rising = dt.min((1.0 - self.factor) * 16.0);
        let dphi = self.factor * rising + rising * rising / 32.0 + (dt - rising);
        self.level = (self.level + shape.rate * dphi).min(shape.burst).max(-1.0);
        self.phi += dphi;
        self.factor = (self.factor + rising / 16.0).min(1.0);
        let halve =
            |at: u64| self.halved.is_none_or(|halved| at > halved && self.m - halved >= 1_000_000);
        if throttled.is_some_and(halve) {
            self.factor = (self.factor / 2.0).max(SLOWEST);
            self.halved = Some(self.m);
        }
    }

    /// Whether a call may start; a spare one that is to queue, and asks for the first time, takes
    /// its place.
    pub fn start(&mut self, shape: Shape, committed: bool, first: bool, longest_s: f64) -> Start {
        let speed = self.factor * shape.rate;
        let wait = if committed {
            (self.level < 1.0 - TOLERANCE).then(|| (1.0 - self.level) / speed)
        } else {
            let queue = first.then_some((self.tail - self.m as f64) / 1e6);
            let ahead = queue
                .filter(|queue| *queue > 0.0)
                .map_or(0.0, |queue| (queue * speed - TOLERANCE).ceil());
            (self.level < shape.reserved + 1.0 + ahead - TOLERANCE).then(|| {
                let refill = (shape.reserved + 1.0 - self.level) / speed;
                queue.map_or(refill, |queue| refill.max(queue + 1.0 / speed))
            })
        };
        match wait {
            None => {
                self.level -= 1.0;
                Start::Now
            }
            Some(wait) if wait <= longest_s + 1e-9 => {
                if first && !committed {
                    self.tail = self.m as f64 + wait * 1e6;
                }
                Start::Later(wait)
            }
            Some(wait) => Start::Never(wait - longest_s),
        }
    }
}

const SLOWEST: f64 = 1.0 / 16.0;
