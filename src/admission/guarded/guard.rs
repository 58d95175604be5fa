//! Decides whether the primary store is asked at all.

use crate::sync::lock;
use std::sync::Mutex;

/// Opens after [`THRESHOLD`] failures in a row. A successful probe does not close it, but puts it
/// on trial. A store may answer probes and still refuse every write (READONLY, OOM). On trial, the
/// first answer decides.
#[derive(Debug)]
pub(super) struct Guard(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    state: State,
    era: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open,
    Trial,
}

/// The permission to ask the primary. It belongs to an era: an answer from before an outage does
/// not count after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leave {
    era: u64,
}

/// The change that an answer, or its absence, has caused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The store is lost: the caller must begin to probe it.
    Lost,
    /// The store is lost again, after a trial.
    LostOnTrial,
    /// The store is back.
    Back,
}

impl Guard {
    pub(super) const fn new(open: bool) -> Self {
        let state = if open { State::Open } else { State::Closed { failures: 0 } };
        Self(Mutex::new(Inner { state, era: 0 }))
    }

    pub(super) fn enter(&self) -> Option<Leave> {
        self.with(|inner| (inner.state != State::Open).then_some(Leave { era: inner.era }))
    }

    pub(super) fn succeeded(&self, leave: Leave) -> Option<Change> {
        self.with(|inner| match inner.state {
            _ if leave.era != inner.era => None,
            State::Open => None,
            State::Closed { .. } => {
                inner.state = State::Closed { failures: 0 };
                None
            }
            State::Trial => {
                inner.state = State::Closed { failures: 0 };
                Some(Change::Back)
            }
        })
    }

    pub(super) fn failed(&self, leave: Leave) -> Option<Change> {
        self.with(|inner| match inner.state {
            _ if leave.era != inner.era => None,
            State::Open => None,
            State::Closed { failures } if failures + 1 < THRESHOLD => {
                inner.state = State::Closed { failures: failures + 1 };
                None
            }
            State::Closed { .. } => {
                inner.state = State::Open;
                Some(Change::Lost)
            }
            State::Trial => {
                inner.state = State::Open;
                Some(Change::LostOnTrial)
            }
        })
    }

    /// The primary answered a probe: calls may ask it again.
    pub(super) fn try_again(&self) {
        self.with(|inner| {
            if inner.state == State::Open {
                *inner = Inner { state: State::Trial, era: inner.era + 1 };
            }
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut lock(&self.0))
    }
}

/// Failures in a row that open the guard.
const THRESHOLD: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> (Guard, Leave) {
        let guard = Guard::new(false);
        let leave = guard.enter().unwrap();
        assert_eq!([(); 3].map(|()| guard.failed(leave)), [None, None, Some(Change::Lost)]);
        (guard, leave)
    }

    #[test]
    fn three_failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let guard = Guard::new(false);
        let leave = guard.enter().unwrap();
        for _ in 0..10 {
            assert_eq!(
                [guard.failed(leave), guard.failed(leave), guard.succeeded(leave)],
                [None; 3]
            );
        }
        assert!(guard.enter().is_some());
        assert!(opened().0.enter().is_none());
    }

    #[test]
    fn on_trial_the_first_answer_decides() {
        let (guard, _) = opened();
        guard.try_again();
        assert_eq!(guard.failed(guard.enter().unwrap()), Some(Change::LostOnTrial));
        assert!(guard.enter().is_none());

        guard.try_again();
        let leave = guard.enter().unwrap();
        assert_eq!(guard.succeeded(leave), Some(Change::Back));
        assert_eq!(
            [guard.failed(leave), guard.failed(leave)],
            [None; 2],
            "it is closed again in full"
        );
    }

    #[test]
    fn answers_from_before_an_outage_decide_nothing_after_it() {
        let (guard, stale) = opened();
        assert_eq!([guard.failed(stale), guard.succeeded(stale)], [None; 2]);
        assert!(guard.enter().is_none());
        guard.try_again();
        assert_eq!([guard.succeeded(stale), guard.failed(stale)], [None; 2]);
        assert!(guard.enter().is_some());
    }
}
