//! The steps of a call as lines of the log, at `debug`: each decision of the store, and the
//! settlement. `connect` logs the attempts.

use std::error::Error;

use tracing::{Level, debug, enabled};

use crate::admission::{
    Answer, Ask, Decision, Quota, Refused, Settled, Settlement, Stage, StoreError, Verdict,
};

/// The store has decided, or has not answered.
pub(super) fn decided(ask: &Ask, answer: &Result<Answer, StoreError>) {
    if !enabled!(Level::DEBUG) {
        return;
    }
    let stage = match ask.stage {
        Stage::Call => "call",
        Stage::Attempt { .. } => "attempt",
        Stage::Renew => "renew",
        Stage::Look => "look",
    };
    match answer {
        Ok(Answer { decision, shadowed, quota }) => {
            let Step { decision, limit, wait } = Step::of(decision, ask.stage);
            debug!(
                stage,
                decision,
                limit,
                shadowed = shadowed.map(|refused| refused.limit.as_str()),
                wait,
                remaining = quota.remaining,
                in_flight = quota.in_flight,
                "decision of the store"
            );
        }
        Err(error) => debug!(stage, error = error as &dyn Error, "no decision of the store"),
    }
}

/// The store has told a tenant's levels, or has not answered.
pub(super) fn quoted(quota: &Result<Quota, StoreError>) {
    match quota {
        Ok(Quota { remaining, in_flight, factor, .. }) => {
            debug!(remaining, in_flight, factor, "levels of the store");
        }
        Err(error) => debug!(error = error as &dyn Error, "no levels of the store"),
    }
}

/// The store has closed the claim, or has not answered.
pub(super) fn settled(settlement: &Settlement, settled: &Result<Settled, StoreError>) {
    if !enabled!(Level::DEBUG) {
        return;
    }
    let verdict = match settlement.verdict {
        Verdict::Done { .. } => "done",
        Verdict::Release { refund: false } => "release",
        Verdict::Release { refund: true } => "refund",
        Verdict::Uncertain => "uncertain",
    };
    match settled {
        Ok(settled) => debug!(verdict, closed = *settled == Settled::Closed, "settlement"),
        Err(error) => {
            let error = error as &dyn Error;
            debug!(verdict, error, "settlement goes on in the background");
        }
    }
}

/// The fields of a decision's line. The wait is in seconds.
struct Step {
    decision: &'static str,
    limit: Option<&'static str>,
    wait: Option<f64>,
}

impl Step {
    fn of(decision: &Decision, stage: Stage) -> Self {
        let step = |decision| Self { decision, limit: None, wait: None };
        match decision {
            // A further attempt is never a takeover.
            Decision::Granted { takeover: true, .. } if stage == Stage::Call => step("takeover"),
            Decision::Granted { .. } => step("granted"),
            Decision::Replay { .. } => step("replay"),
            Decision::Mismatch { .. } => step("mismatch"),
            Decision::Tombstone => step("tombstone"),
            Decision::Lost => step("lost"),
            Decision::Busy { lease } => Self { wait: Some(lease.as_secs_f64()), ..step("busy") },
            Decision::AskAgain { after } => {
                Self { wait: Some(after.as_secs_f64()), ..step("ask_again") }
            }
            Decision::Refused(Refused { limit, retry_after }) => Self {
                limit: Some(limit.as_str()),
                wait: Some(retry_after.as_secs_f64()),
                ..step("refused")
            },
        }
    }
}
