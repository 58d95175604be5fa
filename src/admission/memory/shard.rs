//! One upstream's share of the store: everything that one answer decides over, under one lock.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::super::clock::unix_micros;
use super::super::figures::{lease_micros, micros, up_to_micros};
use super::super::{
    Answer, Ask, Decision, EXPIRY_SKEW, Moment, Quota, RecordAsk, Refused, Scope, Settled,
    Settlement, Stage, Verdict,
};
use super::budget::{Budget, Shape, Start};
use super::record::{Record, Standing};
use super::tenant::TenantState;
use crate::domain::Name;
use crate::error::Limit;

#[derive(Debug)]
pub(super) struct Shard {
    budget: Budget,
    tenants: HashMap<Name, TenantState>,
    records: HashMap<Arc<str>, Record>,
    /// When each record wants purging, soonest first.
    purges: BTreeSet<(u64, Arc<str>)>,
    max_records: usize,
}

/// What a claim does to the record.
enum Claim {
    New { sticky: bool },
    Renew { sticky: bool },
}

impl Shard {
    pub fn new(now: u64, scope: &Scope, max_records: usize) -> Self {
        Self {
            budget: Budget::new(now, f64::from(scope.burst)),
            tenants: HashMap::new(),
            records: HashMap::new(),
            purges: BTreeSet::new(),
            max_records,
        }
    }

    pub fn admit(&mut self, ask: &Ask, now: u64) -> Answer {
        self.advance(&ask.scope, now, ask.throttled);
        let mut shadowed = None;
        let decision = self.decide(ask, &mut shadowed);
        Answer { decision, shadowed, quota: self.levels(&ask.scope) }
    }

    pub fn quota(&mut self, scope: &Scope, now: u64) -> Quota {
        self.advance(scope, now, None);
        self.levels(scope)
    }

    pub fn settle(&mut self, settlement: &Settlement, now: u64, wall: u64) -> Settled {
        let Settlement { scope, nonce, verdict, .. } = settlement;
        self.advance(scope, now, settlement.throttled);
        let m = self.budget.m;
        let mut ours = false;
        if let Some(tenant) = self.tenants.get_mut(&scope.tenant) {
            ours = tenant.land(*nonce, m);
            if ours && matches!(verdict, Verdict::Release { refund: true }) {
                tenant.refund(scope, m);
            }
        }
        if let Some(name) = &settlement.record {
            ours = self
                .records
                .get(name.as_str())
                .is_some_and(|record| record.is_held_by(*nonce, m));
            if ours {
                self.update(name, |record| record.settle(verdict, life(verdict, wall), m));
            }
        }
        if ours { Settled::Closed } else { Settled::NotOurs }
    }

    fn advance(&mut self, scope: &Scope, now: u64, throttled: Option<Moment>) {
        self.budget.advance(now, shape(scope), throttled.map(Moment::micros));
        for _ in 0..PURGED_A_CALL {
            let Some((_, name)) =
                self.purges.first().filter(|(due, _)| *due <= self.budget.m).cloned()
            else {
                return;
            };
            let m = self.budget.m;
            self.update(&name, |record| {
                record.expire(m);
                record.until > m
            });
        }
    }

    fn levels(&mut self, scope: &Scope) -> Quota {
        let (m, factor) = (self.budget.m, self.budget.factor);
        let tenant = self.tenant(scope);
        scope.quota(tenant.level(scope, m), tenant.flying(m), factor)
    }

    fn tenant(&mut self, scope: &Scope) -> &mut TenantState {
        self.tenants.entry(scope.tenant.clone()).or_default()
    }

    fn decide(&mut self, ask: &Ask, shadowed: &mut Option<Refused>) -> Decision {
        let (scope, m) = (&ask.scope, self.budget.m);
        let attempt = matches!(ask.stage, Stage::Attempt { .. });
        let look = ask.stage == Stage::Look;
        let mut lease = m + lease_micros(ask.lease);
        let mut claim = Claim::New { sticky: false };
        let mut mended = false;

        match ask.record.as_ref().map(|record| (record, self.standing(record, ask))) {
            Some((_, Standing::Answer(decision))) => return decision,
            _ if look => return Decision::Lost,
            Some((_, Standing::Free | Standing::Takeover { .. })) if attempt => {
                return Decision::Lost;
            }
            Some((_, Standing::Ours { lease: held, sticky })) => {
                lease = lease.max(held);
                mended = !attempt;
                let uncertain = matches!(ask.stage, Stage::Attempt { uncertain: true, .. });
                claim = Claim::Renew { sticky: sticky || uncertain };
            }
            Some((_, Standing::Free)) => {}
            Some((_, Standing::Takeover { keep: true })) => claim = Claim::Renew { sticky: true },
            Some((_, Standing::Takeover { keep: false })) => claim = Claim::New { sticky: true },
            // A call without a record is known by its lease alone.
            None => {
                if let Some(running) = self.tenant(scope).lease(ask.nonce, m) {
                    lease = lease.max(running);
                    mended = !attempt;
                }
            }
        }
        if !mended && let Some(decision) = self.charge(ask, attempt, shadowed) {
            return decision;
        }
        self.tenant(scope).fly(ask.nonce, lease, m);
        let takeover = match (&ask.record, claim) {
            (None, _) => false,
            (Some(record), Claim::New { sticky }) => {
                let until = (m + micros(record.retention)).max(lease);
                self.insert(&record.name, Record::claimed(record, ask.nonce, lease, until, sticky));
                sticky
            }
            (Some(record), Claim::Renew { sticky }) => {
                self.update(&record.name, |record| {
                    record.claim(ask.nonce, lease, sticky);
                    true
                });
                sticky
            }
        };
        let upstream_token = ask.record.as_ref().map(|record| record.upstream_token.clone());
        Decision::Granted { at: Moment::from_micros(m), upstream_token, takeover }
    }

    fn standing(&mut self, record: &RecordAsk, ask: &Ask) -> Standing {
        let m = self.budget.m;
        let mut standing = Standing::Free;
        self.update(&record.name, |held| {
            standing = held.standing(record, ask.nonce, m);
            held.until > m
        });
        standing
    }

    /// The tenant's ceiling, its calls in flight, the budget: charges all that the call owes, or
    /// nothing.
    fn charge(
        &mut self,
        ask: &Ask,
        attempt: bool,
        shadowed: &mut Option<Refused>,
    ) -> Option<Decision> {
        let (scope, m, phi) = (&ask.scope, self.budget.m, self.budget.phi);
        let tenant = self.tenant(scope);
        let (mut level, mut share) = (tenant.level(scope, m), tenant.share(scope, phi));
        let committed = tenant.is_committed(scope, phi);
        if !attempt {
            for exceeded in [over_rate(scope, level), over_flights(scope, tenant, ask, m)]
                .into_iter()
                .flatten()
            {
                if !scope.shadow() {
                    return Some(Decision::Refused(exceeded));
                }
                shadowed.get_or_insert(exceeded);
            }
        }
        let first = matches!(ask.stage, Stage::First | Stage::Attempt { again: false, .. });
        let longest = micros(ask.wait) as f64 / 1e6;
        match self.budget.start(shape(scope), committed, first, longest) {
            Start::Now => {}
            Start::Later(wait) => return Some(Decision::AskAgain { after: up_to_micros(wait) }),
            Start::Never(excess) => {
                return Some(Decision::Refused(Refused::seconds(Limit::UpstreamBudget, excess)));
            }
        }
        if attempt && !committed {
            return None;
        }
        if committed {
            share -= 1.0;
        }
        if !attempt {
            level -= 1.0;
            // Shadow: what is let through above the rate is not owed later.
            if shadowed.is_some_and(|shadowed| shadowed.limit == Limit::TenantRate) {
                level = level.max(0.0);
            }
        }
        let Self { tenants, budget, .. } = self;
        if let Some(tenant) = tenants.get_mut(&scope.tenant) {
            tenant.set(level, share, budget);
        }
        None
    }

    fn insert(&mut self, name: &str, record: Record) {
        self.update(name, |_| false);
        if self.records.len() >= self.max_records
            && let Some((_, oldest)) = self.purges.first().cloned()
        {
            self.update(&oldest, |_| false);
        }
        let name: Arc<str> = name.into();
        self.purges.insert((record.next_purge(), Arc::clone(&name)));
        self.records.insert(name, record);
    }

    /// Changes a record, or forgets it where the change says false.
    fn update(&mut self, name: &str, change: impl FnOnce(&mut Record) -> bool) {
        let Some((name, mut record)) = self.records.remove_entry(name) else { return };
        self.purges.remove(&(record.next_purge(), Arc::clone(&name)));
        if change(&mut record) {
            self.purges.insert((record.next_purge(), Arc::clone(&name)));
            self.records.insert(name, record);
        }
    }

    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize) {
        (self.records.len(), self.purges.len())
    }
}

fn over_rate(scope: &Scope, level: f64) -> Option<Refused> {
    let short = 1.0 - level;
    (short > super::super::figures::TOLERANCE)
        .then(|| Refused::seconds(Limit::TenantRate, short / scope.limits.rate.per_second()))
}

fn over_flights(scope: &Scope, tenant: &TenantState, ask: &Ask, m: u64) -> Option<Refused> {
    let most = u64::from(scope.limits.max_in_flight);
    let others = tenant.flying(m) - u64::from(tenant.lease(ask.nonce, m).is_some());
    let over = usize::try_from(others.checked_sub(most)?).ok()?;
    let free = *tenant.ends(m).get(over)?;
    Some(Refused::seconds(Limit::TenantInFlight, (free - m) as f64 / 1e6))
}

fn shape(scope: &Scope) -> Shape {
    Shape {
        rate: scope.rate.per_second(),
        burst: f64::from(scope.burst),
        reserved: scope.reserve(),
    }
}

/// What is left of a result's life by its credentials; nothing: they do not end.
fn life(verdict: &Verdict, wall: u64) -> Option<u64> {
    let Verdict::Done { expires: Some(expires), .. } = verdict else { return None };
    Some(unix_micros(*expires).saturating_sub(micros(EXPIRY_SKEW)).saturating_sub(wall))
}

/// A call's share of the purging: more than it can add, so that memory follows what lives.
const PURGED_A_CALL: usize = 4;
