//! One upstream's clock, factor and budget. The arithmetic is that of `redis/common.lua`, in the
//! same order.

use crate::admission::rounding::TOLERANCE;

/// The account's token bucket, and the upstream's clock.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    /// The upstream's clock in µs. It advances as `last` advances, and stands still if `last` steps
    /// back.
    pub m: u64,
    last: u64,
    /// V, in calls.
    pub level: f64,
    /// ∫f dm in seconds. Levels refill with it, so that a long gap is not refilled at the present
    /// f.
    pub phi: f64,
    /// f, 1/16 to 1.
    pub factor: f64,
    halved: Option<u64>,
    /// The end of the last hint to a refused caller, in µs of m.
    promised: f64,
}

/// The limits of an upstream's budget under the present config.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub rate: f64,
    pub burst: f64,
}

impl Budget {
    pub(crate) fn new(now: u64, burst: f64) -> Self {
        let (phi, factor, halved, promised) = (0.0, 1.0, None, 0.0);
        Self { m: now, last: now, level: burst, phi, factor, halved, promised }
    }

    /// Updates the clock, the factor and the level. Then halves the factor if Connect throttled an
    /// attempt that was granted after the last halving.
    pub(crate) fn advance(&mut self, now: u64, shape: Shape, throttled: Option<u64>) {
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

    /// The time until the budget holds that many tokens, in µs; `None`: it holds them now.
    pub(crate) fn wait(&self, shape: Shape, needed: f64) -> Option<f64> {
        (self.level < needed - TOLERANCE).then(|| (needed - self.level) * self.each(shape))
    }

    /// Charges a call that starts. Hints to refused callers stay reserved until the bucket has
    /// enough beside the `reserve`, and no call waits.
    pub(crate) fn pay(&mut self, shape: Shape, reserve: f64, is_alone: bool) {
        if is_alone && has_spare(self.level - reserve, shape.burst - reserve) {
            self.promised = 0.0;
        }
        self.level -= 1.0;
    }

    /// The hint for a refused call, in µs: its exact wait, spread.
    pub(crate) fn send_away(&mut self, shape: Shape, reserve: f64, exact: f64) -> f64 {
        let each = self.each(shape);
        let early = early(each, shape.burst - reserve);
        spread(exact, &mut self.promised, each, early, self.m)
    }

    /// The time in which one token refills, in µs.
    fn each(&self, shape: Shape) -> f64 {
        1e6 / (self.factor * shape.rate)
    }
}

/// An exact wait, spread: callers that are refused together come back one after another. `each`:
/// the time that one more caller adds. A caller that comes less than `early` too soon keeps its
/// turn. All times are in µs.
pub(super) fn spread(exact: f64, promised: &mut f64, each: f64, early: f64, m: u64) -> f64 {
    if exact < early {
        return exact.min(MAX_HINT_US);
    }
    let hint = exact.max(*promised - m as f64 + each).min(MAX_HINT_US);
    *promised = m as f64 + hint;
    hint
}

/// Whether the level is enough for every refused caller, or they do not come back. Half a burst is
/// the allowance for callers that come late.
pub(super) fn has_spare(level: f64, size: f64) -> bool {
    level >= 1.0 + (size / 2.0).max(1.0) - TOLERANCE
}

/// How much too soon a caller may come and keep its turn, in µs. `holds`: the most calls in the
/// bucket. A bucket for a single call loses refill while no caller comes. Larger buckets lose none.
pub(super) fn early(each: f64, holds: f64) -> f64 {
    if holds < 2.0 { each / 10.0 } else { 0.0 }
}

const SLOWEST: f64 = 1.0 / 16.0;

/// The longest hint, in µs.
const MAX_HINT_US: f64 = 30e6;
