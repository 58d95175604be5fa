//! The promises of the fair queue, held at every answer of a crowd: (a), (b), (c), (e) and (f).

use participant_gateway::admission::{Answer, Ask, Decision, Stage};
use participant_gateway::domain::share_burst;
use participant_gateway::error::Limit;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::plans::Plan;
use super::world::rate;

/// What the promises speak of, kept from the answers alone.
pub struct Promises {
    plan: Plan,
    at: u64,
    budget: (f64, u32),
    factor: f64,
    /// What may still start without breaking (a).
    allowance: f64,
    /// What the committed shares hold.
    shares: Vec<f64>,
    calls: Vec<Call>,
    /// By how many starts one tenant leads another since both wait.
    leads: Vec<Vec<u32>>,
    /// Tokens that nobody got though somebody waited.
    pub lost: f64,
    /// The largest lead.
    pub lead: u32,
}

/// Where a caller's call stands.
#[derive(Clone, Copy, Default)]
struct Call {
    tenant: usize,
    /// It is in flight or in the queue.
    has_place: bool,
    waits: bool,
    /// It waits for longer than it needs, as a call before it has left; or it never asks again.
    is_late: bool,
}

impl Promises {
    pub fn of(plan: &Plan) -> Self {
        let tenants = plan.tenants.len();
        let calls = plan.tenants.iter().map(|tenant| tenant.callers).sum();
        Self {
            plan: plan.clone(),
            at: super::world::START,
            budget: plan.budget,
            factor: 1.0,
            allowance: f64::from(plan.budget.1),
            shares: plan.tenants.iter().map(|tenant| burst(tenant.committed)).collect(),
            calls: vec![Call::default(); calls],
            leads: vec![vec![0; tenants]; tenants],
            lost: 0.0,
            lead: 0,
        }
    }

    pub fn go_to(&mut self, at: u64, budget: (f64, u32)) {
        let dt = (at - self.at) as f64 / 1e6;
        let rising = dt.min((1.0 - self.factor) * 16.0);
        let dphi = self.factor * rising + rising * rising / 32.0 + dt - rising;
        let (full, most) = (self.allowance + budget.0 * dphi, f64::from(budget.1));
        let somebody_waits = self.calls.iter().any(|call| call.waits);
        if somebody_waits && self.all_are_punctual() {
            self.lost += (full - most).max(0.0);
        }
        self.allowance = full.min(most);
        // What was told under another config is no exact wait.
        if self.budget != budget {
            self.are_late();
        }
        for (share, tenant) in self.shares.iter_mut().zip(&self.plan.tenants) {
            *share = (*share + tenant.committed * dphi).min(burst(tenant.committed));
        }
        self.factor = (self.factor + rising / 16.0).min(1.0);
        (self.at, self.budget) = (at, budget);
    }

    /// Its call will never ask again.
    pub fn is_doomed(&mut self, caller: usize) {
        self.calls[caller].is_late = true;
        self.forget_leads();
    }

    /// Its call has neither place.
    pub fn left(&mut self, caller: usize) {
        if self.calls[caller].waits {
            self.are_late();
        }
        let tenant = self.calls[caller].tenant;
        self.calls[caller] = Call { tenant, ..Call::default() };
        self.forget_leads();
    }

    pub fn slowed(&mut self, factor: f64) {
        self.factor = factor;
    }

    /// Whoever waits was told another wait than the exact one.
    fn are_late(&mut self) {
        self.calls.iter_mut().for_each(|call| call.is_late = call.waits);
        self.forget_leads();
    }

    pub fn answered(
        &mut self,
        caller: usize,
        tenant: usize,
        ask: &Ask,
        answer: &Answer,
    ) -> TestCaseResult {
        self.factor = answer.quota.factor;
        self.forget_leads();
        let call = &mut self.calls[caller];
        (call.tenant, call.is_late) = (tenant, false);
        let had_place = call.has_place;
        let is_committed = self.shares[tenant] >= 1.0 - 1e-6;
        match answer.decision {
            Decision::Granted { .. } => {
                self.starts(caller, is_committed)?;
                (self.calls[caller].has_place, self.calls[caller].waits) = (true, false);
            }
            Decision::AskAgain { .. } => {
                (call.has_place, call.waits) = (true, true);
                self.suffers(is_committed)?;
            }
            Decision::Refused(refused) => {
                let is_attempt = matches!(ask.stage, Stage::Attempt { .. });
                let has_left = call.waits;
                (call.has_place, call.waits) = (is_attempt, false);
                if has_left {
                    self.are_late();
                }
                if refused.limit == Limit::UpstreamBudget {
                    self.suffers(is_committed)?;
                }
            }
            _ => {}
        }
        if !had_place && self.calls[caller].has_place {
            self.has_room(tenant)?;
        }
        self.forget_leads();
        Ok(())
    }

    /// (a) and (e), at a start.
    fn starts(&mut self, caller: usize, is_committed: bool) -> TestCaseResult {
        self.allowance -= 1.0;
        prop_assert!(self.allowance > -1e-5, "(a): more start than R∫f + B allows");
        let tenant = self.calls[caller].tenant;
        if is_committed {
            self.shares[tenant] -= 1.0;
            return Ok(());
        }
        for other in 0..self.leads.len() {
            if other != tenant && self.both_wait(tenant, other) {
                self.leads[tenant][other] += 1;
                self.leads[other][tenant] = self.leads[other][tenant].saturating_sub(1);
                self.lead = self.lead.max(self.leads[tenant][other]);
                let is_exact = !self.plan.has_jitter && self.plan.throttles == 0.0;
                let is_fair = self.leads[tenant][other] <= 2 || !is_exact;
                prop_assert!(is_fair, "(e): {} leads {} by 3", tenant, other);
            }
        }
        Ok(())
    }

    /// (b): a committed call did not start.
    fn suffers(&self, is_committed: bool) -> TestCaseResult {
        let most = self.plan.budget.1.min(self.plan.later.1) - 1;
        let may_suffer = !is_committed || self.plan.committed_burst() > most;
        prop_assert!(may_suffer, "(b): a committed call was refused or delayed");
        Ok(())
    }

    /// (f), where a call has got a place.
    fn has_room(&self, tenant: usize) -> TestCaseResult {
        let places = |call: &&Call| call.tenant == tenant && call.has_place;
        let places = self.calls.iter().filter(places).count();
        let most = self.plan.tenants[tenant].max_in_flight as usize;
        prop_assert!(places <= most, "(f): {} of {} places are taken", places, most);
        Ok(())
    }

    /// Whether both tenants have spare calls that wait, and nobody comes late: whoever does lets a
    /// turn pass, and the token goes to the next who asks.
    fn both_wait(&self, one: usize, other: usize) -> bool {
        let waits = |tenant| self.calls.iter().any(|call| call.waits && call.tenant == tenant);
        let is_spare = |tenant: usize| self.plan.tenants[tenant].committed == 0.0;
        let both = [one, other].into_iter().all(|tenant| is_spare(tenant) && waits(tenant));
        both && self.all_are_punctual()
    }

    /// Whether all that wait were told when they can start.
    fn all_are_punctual(&self) -> bool {
        !self.calls.iter().any(|call| call.waits && call.is_late)
    }

    fn forget_leads(&mut self) {
        for one in 0..self.leads.len() {
            for other in 0..self.leads.len() {
                if self.leads[one][other] > 0 && !self.both_wait(one, other) {
                    self.leads[one][other] = 0;
                }
            }
        }
    }
}

fn burst(committed: f64) -> f64 {
    f64::from(share_burst(rate(committed)))
}
