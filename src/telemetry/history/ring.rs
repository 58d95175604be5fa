//! Counts over the last 15 minutes, in slots of five seconds.

use std::time::Duration;

/// Counts of several kinds. Slots that nobody counted in are cleared when the next count comes, and
/// not shown before.
#[derive(Debug)]
pub(super) struct Ring {
    /// Slot by slot, with a count a kind.
    counts: Box<[u32]>,
    width: usize,
    /// The slot of the last count.
    last: u64,
    /// Counts, of which each slot forgets a tenth.
    heat: f32,
}

impl Ring {
    pub(crate) fn new(width: usize, now: u64) -> Self {
        let counts = vec![0; SLOTS * width].into_boxed_slice();
        Self { counts, width, last: now, heat: 0.0 }
    }

    /// Counts one of this kind, which is below the width.
    pub(crate) fn count(&mut self, now: u64, kind: usize) {
        if now > self.last {
            self.heat = self.heat(now);
            for slot in (self.last + 1..=now).rev().take(SLOTS) {
                let start = place(slot) * self.width;
                self.counts[start..start + self.width].fill(0);
            }
            self.last = now;
        }
        self.heat += 1.0;
        let count = &mut self.counts[place(self.last) * self.width + kind];
        *count = count.saturating_add(1);
    }

    /// How much it is used at present.
    pub(crate) fn heat(&self, now: u64) -> f32 {
        let gone = i32::try_from(now.saturating_sub(self.last)).unwrap_or(i32::MAX);
        self.heat * 0.9_f32.powi(gone)
    }

    pub(crate) fn last_minute(&self, now: u64, kind: usize) -> u64 {
        (0..MINUTE).map(|ago| u64::from(self.at(now, ago, kind))).sum()
    }

    /// Of all kinds, in the last minute.
    pub(crate) fn minute(&self, now: u64) -> u64 {
        (0..self.width).map(|kind| self.last_minute(now, kind)).sum()
    }

    /// Whether anything was counted in all the time.
    pub(crate) fn is_used(&self, now: u64) -> bool {
        self.last + SLOTS as u64 > now
    }

    /// Of one kind over all the time, the oldest first. A point holds whole slots, so that it stays
    /// what it was while time goes on.
    pub(crate) fn points(&self, now: u64, kind: usize) -> Vec<u32> {
        let each = POINT.as_secs() / SLOT.as_secs();
        let current = now / each;
        let point = |back: u64| {
            let Some(point) = current.checked_sub(back) else { return 0 };
            let slots = (point * each..(point + 1) * each).filter(|slot| *slot <= now);
            slots.fold(0, |sum: u32, slot| sum.saturating_add(self.at(now, now - slot, kind)))
        };
        (0..POINTS as u64).rev().map(point).collect()
    }

    /// The count of so many slots ago.
    fn at(&self, now: u64, ago: u64, kind: usize) -> u32 {
        let Some(slot) = now.checked_sub(ago) else { return 0 };
        if slot > self.last || slot + SLOTS as u64 <= self.last {
            return 0;
        }
        self.counts[place(slot) * self.width + kind]
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.counts)
    }
}

const fn place(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

/// What is counted together.
pub(crate) const SLOT: Duration = Duration::from_secs(5);

/// What is drawn as one point.
pub(crate) const POINT: Duration = Duration::from_secs(15);

/// 15 minutes of them.
pub(crate) const POINTS: usize = 60;

/// 15 minutes of them.
const SLOTS: usize = 180;

/// A minute of slots: the one that still grows, and eleven before it.
const MINUTE: u64 = 12;
