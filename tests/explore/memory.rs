//! The memory store, on a clock set by hand.
//!
//! A state is a copy of the store. Its view is what it shows of itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use participant_gateway::admission::memory::{Copied, MemoryStore};
use participant_gateway::admission::{
    self, Ask, Decision, EXPIRY_SKEW, ManualClock, Nonce, RecordAsk, Scope, Settled, Settlement,
    Store,
};
use participant_gateway::domain::{Enforcement, Name, Rate, TenantLimits, UpstreamToken};

use crate::engine::{Engine, Outcome, Step};
use crate::scripts::{TENANT, mac_of, print_of, sealed_by, token_of};
use crate::world::{
    Content, Kind, LEASE, LONGEST_WAIT, Limits, Loss, Ms, Op, Queued, RESULT, RETENTION, Record,
    RecordState, Reply, Stage, Verdict, View, Who,
};

pub struct MemoryEngine {
    scope: Scope,
    limits: Limits,
    done: VecDeque<Vec<Outcome<Held>>>,
}

/// A store, its time, and its levels as they are. A view's levels may be any, where they decide
/// nothing: what counts is how they change.
#[derive(Clone)]
pub struct Held {
    store: Arc<MemoryStore>,
    now: u64,
    ceiling: i64,
    budget: i64,
}

impl MemoryEngine {
    pub fn under(limits: Limits) -> Self {
        let name = |text| Name::parse(text).unwrap();
        let rate = |per_second| Rate::new(per_second).unwrap();
        let scope = Scope {
            tenant: name(TENANT),
            limits: TenantLimits {
                rate: rate(Limits::TENANT_RATE),
                burst: limits.tenant_burst,
                committed: Rate::default(),
                max_in_flight: limits.in_flight,
                enforcement: Enforcement::Enforce,
            },
            upstream: name("main"),
            rate: rate(limits.rate),
            burst: limits.burst,
            committed_burst: 0,
        };
        Self { scope, limits, done: VecDeque::new() }
    }

    fn ask(&self, who: Who, stage: Stage, content: Content, distrust: Option<Who>) -> Ask {
        Ask {
            scope: self.scope.clone(),
            nonce: Nonce(u128::from(who) + 1),
            record: Some(RecordAsk {
                name: RECORD.into(),
                version: 1,
                fingerprint: print_of(content).into(),
                upstream_token: UpstreamToken::new(token_of(content)).unwrap(),
                mac: mac_of(content).into(),
                retention: millis(RETENTION),
                distrust: distrust.map(|who| sealed_by(who).into_bytes()),
            }),
            lease: millis(LEASE),
            wait: millis(LONGEST_WAIT),
            patience: Duration::ZERO,
            typical: Duration::from_millis(300),
            stage: match stage {
                Stage::Call => admission::Stage::Call,
                Stage::Attempt { uncertain } => admission::Stage::Attempt { uncertain },
                Stage::Renew => admission::Stage::Renew,
            },
            throttled: None,
        }
    }

    fn settlement(&self, who: Who, verdict: Verdict, now: u64) -> Settlement {
        let expires = SystemTime::UNIX_EPOCH + Duration::from_micros(now) + EXPIRY_SKEW;
        let verdict = match verdict {
            Verdict::Done => admission::Verdict::Done {
                sealed: sealed_by(who).into_bytes(),
                expires: Some(expires + millis(RESULT)),
            },
            Verdict::Release => admission::Verdict::Release { refund: false },
            Verdict::Refund => admission::Verdict::Release { refund: true },
            Verdict::Uncertain => admission::Verdict::Uncertain,
        };
        Settlement {
            scope: self.scope.clone(),
            nonce: Nonce(u128::from(who) + 1),
            record: Some(RECORD.into()),
            verdict,
            throttled: None,
        }
    }

    fn run(&self, Step { store: held, view: before, op }: &Step<Held>) -> Outcome<Held> {
        let now = held.now;
        let store = held.store.fork(ManualClock::at(now));
        let reply = match *op {
            Op::Ask { who, stage, content, distrust } => {
                let ask = self.ask(who, stage, content, distrust);
                let answer = store.admit(&ask).now_or_never().unwrap().unwrap();
                reply(answer.decision).unwrap_or_else(Reply::Broken)
            }
            Op::Settle { who, verdict } => {
                let settlement = self.settlement(who, verdict, now);
                let settled = store.settle(&settlement).now_or_never().unwrap().unwrap();
                Reply::Settled(settled == Settled::Closed)
            }
        };
        let mut view = view(&store.copied(&self.scope, RECORD));
        let (ceiling, budget) = (view.ceiling, view.budget);
        view.ceiling = before.ceiling + ceiling - held.ceiling;
        if !self.limits.queues() {
            view.budget = before.budget + budget - held.budget;
        }
        let store = Held { store: Arc::new(store), now, ceiling, budget };
        Outcome { store, view, reply }
    }
}

impl Engine for MemoryEngine {
    type Store = Held;

    /// One call has started and ended.
    fn first(&self) -> (Held, View) {
        let now = START;
        let store = MemoryStore::with_clock(ManualClock::at(now));
        let ask = Ask { record: None, ..self.ask(u8::MAX, Stage::Call, 0, None) };
        store.admit(&ask).now_or_never().unwrap().unwrap();
        let ended = Settlement { record: None, ..self.settlement(u8::MAX, Verdict::Release, now) };
        store.settle(&ended).now_or_never().unwrap().unwrap();
        let view = view(&store.copied(&self.scope, RECORD));
        let (ceiling, budget) = (view.ceiling, view.budget);
        (Held { store: Arc::new(store), now, ceiling, budget }, view)
    }

    fn later(&self, held: &Held, view: &View, ms: Ms) -> (Held, View) {
        let later = view.clone().after(ms, &self.limits);
        let now = held.now + u64::try_from(ms).unwrap() * 1_000;
        (Held { store: Arc::clone(&held.store), now, ..*held }, later)
    }

    /// A store in memory loses all or nothing. What has ended it forgets by itself.
    fn lose(&self, held: &Held, view: &View, loss: Loss) -> Option<(Held, View)> {
        match loss {
            Loss::Everything => {
                let now = held.now;
                let store = MemoryStore::with_clock(ManualClock::at(now));
                let lost = view.clone().without(loss, &self.limits);
                let full = |burst: u32| i64::from(burst) * 1_000;
                let (ceiling, budget) = (full(self.limits.tenant_burst), full(self.limits.burst));
                Some((Held { store: Arc::new(store), now, ceiling, budget }, lost))
            }
            _ => None,
        }
    }

    fn submit(&mut self, steps: Vec<Step<Held>>) {
        let outcomes = steps.iter().map(|step| self.run(step)).collect();
        self.done.push_back(outcomes);
    }

    fn collect(&mut self) -> Vec<Outcome<Held>> {
        self.done.pop_front().expect("nothing is under way")
    }

    fn forget(&mut self) {
        self.done.clear();
    }
}

fn reply(decision: Decision) -> Result<Reply, String> {
    let unread = format!("the store decides {decision:?}");
    let reply = match decision {
        Decision::Granted { takeover, upstream_token, .. } => {
            let token = upstream_token.map(|token| token.as_str().to_owned());
            let token = token.and_then(|token| number_after(&token, "token-of-"));
            token.map(|token| Reply::Granted { sticky: takeover, token })
        }
        Decision::Replay { sealed } => sealer(&sealed).map(Reply::Replay),
        Decision::Mismatch { fingerprint, .. } => {
            number_after(&fingerprint, "print-of-").map(Reply::Mismatch)
        }
        Decision::Busy { lease } => Some(Reply::Busy(lease.as_millis() as Ms)),
        Decision::Tombstone => Some(Reply::Tombstone),
        Decision::Lost => Some(Reply::Lost),
        Decision::Refused(_) => Some(Reply::Refused),
        Decision::AskAgain { after } => Some(Reply::AskAgain(after.as_millis() as Ms)),
    };
    reply.ok_or(unread)
}

fn view(copied: &Copied) -> View {
    let from_now = |us: u64| (us.saturating_sub(copied.m) / 1_000) as Ms;
    let who = |nonce: &Nonce| u8::try_from(nonce.0 - 1).unwrap_or(u8::MAX);
    let queued = |place: &participant_gateway::admission::memory::WaitingCopy| Queued {
        who: who(&place.nonce),
        kind: if place.is_attempt { Kind::Attempt } else { Kind::Call },
        dropped: from_now(place.dropped),
    };
    let record = copied.record.as_ref().map(|record| Record {
        state: match record.state {
            "in_flight" => RecordState::InFlight,
            "done" => RecordState::Done,
            "tombstone" => RecordState::Tombstone,
            _ => RecordState::Uncertain,
        },
        holder: record.claim.as_ref().map(|(nonce, _)| who(nonce)),
        content: number_after(&record.fingerprint, "print-of-").unwrap_or(u8::MAX),
        sticky: record.sticky,
        lease: record.claim.as_ref().map_or(0, |(_, lease)| from_now(*lease)),
        until: from_now(record.until),
        body_until: record.body.as_ref().map(|(_, until)| from_now(*until)),
        body: record.body.as_ref().and_then(|(sealed, _)| sealer(sealed)),
    });
    let mut flights: Vec<_> =
        copied.flights.iter().map(|(nonce, end)| (who(nonce), from_now(*end))).collect();
    flights.sort_unstable();
    let queue: Vec<_> = copied.waiting.iter().map(queued).collect();
    let tags = match queue[..] {
        [] => (0, None),
        _ => (copied.served as i64, copied.last_start.map(|tag| tag as i64)),
    };
    View {
        record,
        flights,
        tags,
        queue,
        queued: copied.queued.into(),
        ceiling: (copied.ceiling * 1e3).round() as i64,
        budget: (copied.budget * 1e3).round() as i64,
    }
}

fn sealer(sealed: &[u8]) -> Option<Who> {
    number_after(std::str::from_utf8(sealed).ok()?, "sealed-by-")
}

fn number_after(text: &str, head: &str) -> Option<u8> {
    text.strip_prefix(head)?.parse().ok()
}

fn millis(ms: Ms) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap())
}

const RECORD: &str = "record";
const START: u64 = 1_763_700_000_000_000;
