//! One upstream's part of the store: all that one answer decides over, under one lock.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::budget::{Budget, Shape};
use super::queue::{Kind, Queue, Who};
use super::record::{Record, Standing};
use super::tenant::{Lease, LevelsAt, TenantState};
use crate::admission::clock::unix_micros;
use crate::admission::rounding::{lease_micros, micros, up_to_micros};
use crate::admission::{
    Answer, Ask, Decision, EXPIRY_SKEW, Moment, Quota, RecordAsk, Refused, Scope, Settled,
    Settlement, Stage, StoreLevels, Verdict,
};
use crate::domain::Name;
use crate::error::Limit;

#[derive(Debug, Clone)]
pub(super) struct UpstreamState {
    pub(super) budget: Budget,
    pub(super) queue: Queue,
    pub(super) tenants: HashMap<Name, TenantState>,
    pub(super) records: HashMap<Arc<str>, Record>,
    /// When each record next needs a purge, the soonest first.
    purges: BTreeSet<(u64, Arc<str>)>,
    max_records: usize,
}

/// The effect of a grant on the record.
enum Claimed {
    New { sticky: bool },
    Renew { sticky: bool },
}

/// The decision so far on an ask that the record lets through.
struct Decided {
    levels: LevelsAt,
    /// When the granted lease ends, in µs of m.
    lease: u64,
    held: Option<Lease>,
    claim: Claimed,
    /// The grant already stands, and only its reply was lost.
    is_mended: bool,
    /// The call takes no counted place, and does not pay at the ceiling.
    is_free: bool,
    shadowed: Option<Refused>,
}

impl UpstreamState {
    pub(crate) fn new(now: u64, scope: &Scope, max_records: usize) -> Self {
        Self {
            budget: Budget::new(now, f64::from(scope.burst)),
            queue: Queue::default(),
            tenants: HashMap::new(),
            records: HashMap::new(),
            purges: BTreeSet::new(),
            max_records,
        }
    }

    pub(crate) fn admit(&mut self, ask: &Ask, now: u64) -> Answer {
        self.advance(&ask.scope, now, ask.throttled);
        let (decision, shadowed) = match self.consult_record(ask) {
            Err(decision) => (decision, None),
            Ok(decided) => self.decide(ask, decided),
        };
        Answer { decision, shadowed, quota: self.levels(&ask.scope) }
    }

    pub(crate) fn all_levels(&mut self, scope: &Scope, now: u64) -> StoreLevels {
        self.advance(scope, now, None);
        let quota = self.levels(scope);
        let queued = self.queue.count(self.budget.m);
        let Self { tenants, budget, .. } = self;
        let tenant = tenants.entry(scope.tenant.clone()).or_default().levels(scope, budget);
        StoreLevels {
            quota,
            tenant: tenant.ceiling,
            share: tenant.share,
            budget: budget.level,
            queued,
        }
    }

    pub(crate) fn settle(&mut self, settlement: &Settlement, now: u64, wall: u64) -> Settled {
        let Settlement { scope, nonce, verdict, .. } = settlement;
        self.advance(scope, now, settlement.throttled);
        let m = self.budget.m;
        let removed = self.tenant(scope).free(*nonce, m);
        let mut ours = removed.is_some();
        let mut has_left = false;
        if matches!(verdict, Verdict::Release { .. }) {
            let (nonce, tenant) = (*nonce, &scope.tenant);
            let left = self.queue.leave(Who { nonce, tenant, is_attempt: false });
            has_left = left.is_some_and(Kind::has_paid);
            self.queue.leave(Who { nonce, tenant, is_attempt: true });
        }
        let was_counted = removed.is_some_and(|lease| lease.is_counted);
        let refunds = was_counted && matches!(verdict, Verdict::Release { refund: true });
        if has_left || refunds {
            let Self { tenants, budget, .. } = self;
            if let Some(tenant) = tenants.get_mut(&scope.tenant) {
                tenant.give_back(scope, budget, has_left);
            }
        }
        if let Some(name) = &settlement.record {
            ours = self.records.get(&**name).is_some_and(|held| held.is_held_by(*nonce, m));
            if ours {
                self.update(name, |record| record.settle(verdict, life(verdict, wall), m));
            }
        }
        if ours { Settled::Closed } else { Settled::NotOurs }
    }

    pub(super) fn advance(&mut self, scope: &Scope, now: u64, throttled: Option<Moment>) {
        self.budget.advance(now, shape(scope), throttled.map(Moment::micros));
        for _ in 0..PURGED_A_CALL {
            let m = self.budget.m;
            let Some((_, name)) = self.purges.first().filter(|(due, _)| *due <= m).cloned() else {
                return;
            };
            self.update(&name, |record| {
                record.expire(m);
                record.until > m
            });
        }
    }

    fn levels(&mut self, scope: &Scope) -> Quota {
        let (m, factor) = (self.budget.m, self.budget.factor);
        let Self { tenants, budget, .. } = self;
        let tenant = tenants.entry(scope.tenant.clone()).or_default();
        scope.quota(tenant.levels(scope, budget).ceiling, tenant.in_flight(m), factor)
    }

    fn tenant(&mut self, scope: &Scope) -> &mut TenantState {
        self.tenants.entry(scope.tenant.clone()).or_default()
    }

    /// Asks the record first. Returns its answer, or the ask that it lets through.
    fn consult_record(&mut self, ask: &Ask) -> Result<Decided, Decision> {
        let (scope, m) = (&ask.scope, self.budget.m);
        let is_attempt = matches!(ask.stage, Stage::Attempt { .. });
        let needs_claim = is_attempt || ask.stage == Stage::Renew;
        let mut lease = m + lease_micros(ask.lease);
        let mut claim = Claimed::New { sticky: false };
        let mut is_mended = false;
        match ask.record.as_ref().map(|record| self.standing(record, ask)) {
            Some(Standing::Answer(decision)) => return Err(decision),
            _ if ask.stage == Stage::Look => return Err(Decision::Lost),
            Some(Standing::Free | Standing::Takeover { .. }) if needs_claim => {
                return Err(Decision::Lost);
            }
            Some(Standing::Ours { lease: held, sticky }) => {
                lease = lease.max(held);
                is_mended = !is_attempt;
                let uncertain = matches!(ask.stage, Stage::Attempt { uncertain: true });
                claim = Claimed::Renew { sticky: sticky || uncertain };
            }
            Some(Standing::Takeover { keep: true }) => claim = Claimed::Renew { sticky: true },
            Some(Standing::Takeover { keep: false }) => claim = Claimed::New { sticky: true },
            Some(Standing::Free) | None => {}
        }
        let held = self.tenant(scope).lease(ask.nonce, m);
        let Self { tenants, budget, .. } = self;
        let tenant = tenants.entry(scope.tenant.clone()).or_default();
        let levels = tenant.levels(scope, budget);
        let (is_free, shadowed) = (is_attempt, None);
        Ok(Decided { levels, lease, held, claim, is_mended, is_free, shadowed })
    }

    fn decide(&mut self, ask: &Ask, mut decided: Decided) -> (Decision, Option<Refused>) {
        if ask.stage == Stage::Renew {
            return (self.renew(ask, decided), None);
        }
        let tenant = &ask.scope.tenant;
        self.queue.purge(self.budget.m);
        // Queued calls that never asked again get back their charge.
        let paid = self.queue.paid(tenant);
        let gives_back = paid < decided.levels.queued;
        if gives_back {
            let burst = f64::from(ask.scope.limits.burst);
            let unpaid = f64::from(decided.levels.queued - paid);
            decided.levels.ceiling = (decided.levels.ceiling + unpaid).min(burst);
            decided.levels.queued = paid;
        }
        let queued = self.queue.turn(who(ask)).kind;
        // A call without a record is known only by its lease. The place of a queued call ends with
        // its turn. It is no grant.
        if ask.record.is_none()
            && queued.is_none()
            && let Some(held) = decided.held
        {
            decided.lease = decided.lease.max(held.ends);
            decided.is_mended = !matches!(ask.stage, Stage::Attempt { .. });
        }
        let refused = match queued {
            Some(Kind::Shadowed(limit)) => {
                decided.shadowed = Some(Refused::micros(limit, 0.0));
                decided.is_free = true;
                None
            }
            Some(Kind::Call | Kind::Committed | Kind::Attempt) => None,
            None => self.over_own_limits(ask, &mut decided),
        };
        let decision = match refused {
            Some(refused) => Decision::Refused(refused),
            None if decided.is_mended => self.grant(ask, &mut decided),
            None => self.charge(ask, &mut decided, queued),
        };
        let shadowed = decided.shadowed;
        let Self { tenants, budget, .. } = self;
        if let Some(tenant) = tenants.get_mut(&ask.scope.tenant)
            && (gives_back || decided.levels != tenant.levels(&ask.scope, budget))
        {
            tenant.keep(decided.levels);
        }
        (decision, shadowed)
    }

    /// Asks the tenant's ceiling, then its calls in flight. A call that shadow enforcement lets
    /// through does not change the tenant's figures, like a refused one.
    fn over_own_limits(&mut self, ask: &Ask, decided: &mut Decided) -> Option<Refused> {
        let (scope, m) = (&ask.scope, self.budget.m);
        if matches!(ask.stage, Stage::Attempt { .. }) || decided.is_mended {
            return None;
        }
        let own = u64::from(decided.held.is_some_and(|held| held.is_counted));
        let others = self.tenant(scope).in_flight(m) - own;
        let levels = &mut decided.levels;
        let refused = if levels.is_over_rate() {
            Refused::micros(Limit::TenantRate, levels.send_away_by_rate(scope, m))
        } else if others >= u64::from(scope.limits.max_in_flight) {
            let typical = micros(ask.typical) as f64;
            let hint = levels.send_away_by_flights(scope, typical, m);
            Refused::micros(Limit::TenantInFlight, hint)
        } else {
            levels.forget_promises(scope, others);
            return None;
        };
        if !scope.shadow() {
            return Some(refused);
        }
        decided.shadowed = Some(refused);
        decided.is_free = true;
        None
    }

    /// Asks the upstream's budget, the fourth limit: starts the call, lets it wait, or refuses it.
    fn charge(&mut self, ask: &Ask, decided: &mut Decided, queued: Option<Kind>) -> Decision {
        let scope = &ask.scope;
        let turn = self.queue.turn(who(ask));
        let is_committed = decided.levels.is_committed();
        let needed = if is_committed { 1.0 } else { scope.reserve() + 1.0 + turn.ahead as f64 };
        if let Some(wait) = self.budget.wait(shape(scope), needed) {
            let longest = micros(ask.wait) as f64;
            if wait > longest + 1e-3 {
                // Each call ahead may start up to 1 µs late, as it is told whole microseconds.
                let late = turn.ahead as f64;
                return self.refuse(ask, decided, wait - longest + late);
            }
            if queued.is_some() || self.queue.has_room() {
                return self.wait_for(ask, decided, wait, is_committed);
            }
            return self.refuse(ask, decided, wait);
        }
        self.queue.leave(who(ask));
        self.budget.pay(shape(scope), scope.reserve(), self.queue.is_empty());
        if is_committed {
            decided.levels.share -= 1.0;
        } else {
            self.queue.started(&scope.tenant, turn);
        }
        if queued.is_some_and(Kind::has_paid) {
            decided.levels.queued -= 1;
        } else if !decided.is_free {
            decided.levels.ceiling -= 1.0;
        }
        self.grant(ask, decided)
    }

    /// Holds the call's places in flight and in the queue until its next ask.
    fn wait_for(
        &mut self,
        ask: &Ask,
        decided: &mut Decided,
        wait: f64,
        is_committed: bool,
    ) -> Decision {
        let (scope, m) = (&ask.scope, self.budget.m);
        let dropped = (m as f64 + wait + GRACE_US) as u64;
        let kind = match (ask.stage, decided.shadowed) {
            (Stage::Attempt { .. }, _) => Kind::Attempt,
            (_, Some(shadowed)) => Kind::Shadowed(shadowed.limit),
            _ if is_committed => Kind::Committed,
            _ => Kind::Call,
        };
        let is_new = self.queue.turn(who(ask)).kind.is_none();
        if is_new && kind.has_paid() {
            decided.levels.ceiling -= 1.0;
            decided.levels.queued += 1;
        }
        self.queue.join(who(ask), kind, dropped);
        if !decided.is_free {
            let lease = Lease { ends: dropped, is_counted: true };
            self.tenant(scope).take(ask.nonce, lease, m);
        }
        Decision::AskAgain { after: up_to_micros(wait / 1e6) }
    }

    fn refuse(&mut self, ask: &Ask, decided: &mut Decided, wait: f64) -> Decision {
        let (scope, m) = (&ask.scope, self.budget.m);
        let hint = self.budget.send_away(shape(scope), scope.reserve(), wait);
        if self.queue.leave(who(ask)).is_some_and(Kind::has_paid) {
            let burst = f64::from(scope.limits.burst);
            decided.levels.ceiling = (decided.levels.ceiling + 1.0).min(burst);
            decided.levels.queued -= 1;
        }
        if !decided.is_free {
            self.tenant(scope).free(ask.nonce, m);
        }
        Decision::Refused(Refused::micros(Limit::UpstreamBudget, hint))
    }

    fn grant(&mut self, ask: &Ask, decided: &mut Decided) -> Decision {
        let (scope, m) = (&ask.scope, self.budget.m);
        let lease = decided.lease;
        let is_attempt = matches!(ask.stage, Stage::Attempt { .. });
        let is_counted = match decided.held {
            Some(held) if is_attempt || decided.is_mended => held.is_counted,
            _ if is_attempt => true,
            _ => !decided.is_free,
        };
        self.tenant(scope).take(ask.nonce, Lease { ends: lease, is_counted }, m);
        let takeover = match (&ask.record, &decided.claim) {
            (None, _) => false,
            (Some(record), Claimed::New { sticky }) => {
                let until = (m + micros(record.retention)).max(lease);
                let claimed = Record::claimed(record, ask.nonce, lease, until, *sticky);
                self.insert(&record.name, claimed);
                *sticky
            }
            (Some(record), Claimed::Renew { sticky }) => {
                self.update(&record.name, |record| {
                    record.claim(ask.nonce, lease, *sticky);
                    true
                });
                *sticky
            }
        };
        let distrusted = matches!(decided.claim, Claimed::New { sticky: true });
        granted(ask, m, takeover, distrusted)
    }

    /// Renews the leases of a granted call, and changes nothing else.
    fn renew(&mut self, ask: &Ask, mut decided: Decided) -> Decision {
        match (decided.held, &ask.record) {
            (None, None) => return Decision::Lost,
            (Some(held), None) => decided.lease = decided.lease.max(held.ends),
            (_, Some(_)) => {}
        }
        let (lease, m) = (decided.lease, self.budget.m);
        let takeover = matches!(decided.claim, Claimed::Renew { sticky: true });
        if let Some(held) = decided.held {
            let lease = Lease { ends: lease.max(held.ends), ..held };
            self.tenant(&ask.scope).take(ask.nonce, lease, m);
        }
        if let Some(record) = &ask.record {
            self.update(&record.name, |record| {
                record.claim(ask.nonce, lease, takeover);
                true
            });
        }
        granted(ask, m, takeover, false)
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

    fn insert(&mut self, name: &Arc<str>, record: Record) {
        self.update(name, |_| false);
        if self.records.len() >= self.max_records
            && let Some((_, oldest)) = self.purges.first().cloned()
        {
            self.update(&oldest, |_| false);
        }
        self.purges.insert((record.next_purge(), Arc::clone(name)));
        self.records.insert(Arc::clone(name), record);
    }

    /// Changes a record, or forgets it if the change returns false.
    fn update(&mut self, name: &str, change: impl FnOnce(&mut Record) -> bool) {
        let Some((name, mut record)) = self.records.remove_entry(name) else { return };
        self.purges.remove(&(record.next_purge(), Arc::clone(&name)));
        if change(&mut record) {
            self.purges.insert((record.next_purge(), Arc::clone(&name)));
            self.records.insert(name, record);
        }
    }

    #[cfg(test)]
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.records.len(), self.purges.len())
    }
}

fn who(ask: &Ask) -> Who<'_> {
    let is_attempt = matches!(ask.stage, Stage::Attempt { .. });
    Who { nonce: ask.nonce, tenant: &ask.scope.tenant, is_attempt }
}

fn granted(ask: &Ask, m: u64, takeover: bool, distrusted: bool) -> Decision {
    let upstream_token = ask.record.as_ref().map(|record| record.upstream_token.clone());
    Decision::Granted { at: Moment::from_micros(m), upstream_token, takeover, distrusted }
}

fn shape(scope: &Scope) -> Shape {
    Shape { rate: scope.rate.per_second(), burst: f64::from(scope.burst) }
}

/// The rest of a result's life by its credentials, in µs; `None`: they do not end.
fn life(verdict: &Verdict, wall: u64) -> Option<u64> {
    let Verdict::Done { expires: Some(expires), .. } = verdict else { return None };
    Some(unix_micros(*expires).saturating_sub(micros(EXPIRY_SKEW)).saturating_sub(wall))
}

/// The records that one call purges. They are more than it can add, so that memory follows the live
/// records.
const PURGED_A_CALL: usize = 4;

/// How much later than its hint a queued call may ask again, in µs.
const GRACE_US: f64 = 250e3;
