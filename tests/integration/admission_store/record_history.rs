//! What must hold of one record through any history. The test knows only the store's answers. It runs
//! on the in-memory store, for speed; the model test holds Redis equal to it.

use std::time::Duration;

use participant_gateway::admission::memory::MemoryStore;
use participant_gateway::admission::{
    Ask, Decision, ManualClock, Nonce, Scope, Settled, Stage, Store, Verdict,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::model::for_all;
use super::world::*;

#[derive(Debug, Clone)]
enum Move {
    Pass { micros: u64 },
    Ask { nonce: usize, lease_s: u64, stage: Stage },
    Settle { nonce: usize, ending: Ending },
}

fn a_move() -> impl Strategy<Value = Move> {
    let micros = prop_oneof![4 => 0..10_000_000_u64, 1 => 0..2_000_000_000_u64];
    prop_oneof![
        5 => micros.prop_map(|micros| Move::Pass { micros }),
        6 => (0..NONCES, 1..20_u64, stage())
            .prop_map(|(nonce, lease_s, stage)| Move::Ask { nonce, lease_s, stage }),
        4 => (0..NONCES, ending()).prop_map(|(nonce, ending)| Move::Settle { nonce, ending }),
    ]
}

fn stage() -> impl Strategy<Value = Stage> {
    let attempt = |uncertain| Just(Stage::Attempt { uncertain });
    prop_oneof![4 => Just(Stage::Call), 1 => attempt(false), 1 => attempt(true)]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        2 => prop::option::of(0..300_u64).prop_map(|expires_s| Ending::Done { expires_s }),
        2 => Just(Ending::Release { refund: false }),
        1 => Just(Ending::Uncertain),
    ]
}

/// What a test knows of the record.
#[derive(Default)]
struct Known {
    /// The last grant: its nonce, and when its lease ends.
    owner: Option<(Nonce, u64)>,
    sticky: bool,
    /// The result, and when it ends.
    result: Option<(Vec<u8>, u64)>,
    until: u64,
    token: Option<String>,
}

/// A record, its callers, and its store.
struct Life {
    store: MemoryStore,
    clock: ManualClock,
    now: u64,
    nonces: [Nonce; NONCES],
    known: Known,
    results: u32,
}

/// One owner at a time; the same token for good; once uncertain, never forgotten; a result is
/// repeated to its end.
#[test]
fn a_record_keeps_its_promises_through_any_history() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for_all(600, prop::collection::vec(a_move(), 1..120), |moves| {
        runtime.block_on(async {
            let mut life = Life::new();
            for (index, step) in moves.iter().enumerate() {
                let taken = life.take(step).await;
                taken.map_err(|why| TestCaseError::fail(format!("move {index}: {why}")))?;
            }
            Ok(())
        })
    });
}

impl Life {
    fn new() -> Self {
        let clock = ManualClock::at(START);
        Self {
            store: MemoryStore::with_clock(clock.clone()),
            clock,
            now: START,
            nonces: std::array::from_fn(|_| nonce()),
            known: Known::default(),
            results: 0,
        }
    }

    async fn take(&mut self, step: &Move) -> TestCaseResult {
        if self.now >= self.known.until {
            self.known = Known::default();
        }
        match *step {
            Move::Pass { micros } => {
                self.now += micros;
                self.clock.set(self.now);
                Ok(())
            }
            Move::Ask { nonce, lease_s, stage } => {
                let lease = Duration::from_secs(lease_s);
                let ask = Ask { lease, stage, ..self.ask(nonce) };
                let decision = self.store.admit(&ask).await.unwrap().decision;
                self.decided(&ask, decision)?;
                self.no_other_content_gets_it(&ask).await
            }
            Move::Settle { nonce, ending } => self.settle(nonce, ending).await,
        }
    }

    fn ask(&self, nonce: usize) -> Ask {
        let mut record = record("a", "x");
        record.retention = RETENTION;
        let mut scope = Scope { rate: rate(1e6), burst: 1_000_000, ..scope() };
        scope.limits.rate = rate(1e6);
        Ask {
            scope,
            nonce: self.nonces[nonce],
            record: Some(record),
            lease: Duration::from_secs(15),
            wait: Duration::ZERO,
            patience: Duration::ZERO,
            typical: Duration::from_millis(300),
            stage: Stage::Call,
            throttled: None,
        }
    }

    fn is_owner(&self, nonce: Nonce) -> bool {
        self.known.owner.is_some_and(|(owner, _)| owner == nonce)
    }

    /// What is left of the lease of an owner.
    fn lease_left(&self) -> Option<Duration> {
        let (_, end) = self.known.owner.filter(|(_, end)| *end > self.now)?;
        Some(Duration::from_micros(end - self.now))
    }

    fn decided(&mut self, ask: &Ask, decision: Decision) -> TestCaseResult {
        let mine = self.is_owner(ask.nonce);
        match decision {
            Decision::Granted { takeover, upstream_token, .. } => {
                let token = upstream_token.map(|token| token.as_str().to_owned());
                return self.granted(ask, takeover, token);
            }
            Decision::Busy { lease } => {
                let left = self.lease_left().filter(|_| !mine);
                prop_assert_eq!(Some(lease), left, "busy");
            }
            Decision::Replay { sealed, .. } => {
                let (result, until) = self.known.result.as_ref().unwrap();
                prop_assert!(sealed == *result && self.now < *until, "a wrong result");
            }
            Decision::Tombstone => {
                let until = self.known.result.as_ref().map(|(_, until)| *until);
                prop_assert!(until.is_some_and(|until| until <= self.now), "a live result is gone");
            }
            Decision::Lost => {
                let is_attempt = matches!(ask.stage, Stage::Attempt { .. });
                let is_free = self.lease_left().is_none() && self.known.result.is_none();
                prop_assert!(is_attempt && !mine && is_free, "lost");
            }
            other => prop_assert!(false, "{:?}", other),
        }
        Ok(())
    }

    fn granted(&mut self, ask: &Ask, takeover: bool, token: Option<String>) -> TestCaseResult {
        let (mine, now) = (self.is_owner(ask.nonce), self.now);
        prop_assert!(self.lease_left().is_none() || mine, "two owners");
        let known = &mut self.known;
        prop_assert!(known.result.is_none(), "a result was run again");
        prop_assert!(takeover || !known.sticky, "the sticky bit is gone");
        prop_assert!(known.token.is_none() || known.token == token, "another token");
        if known.until <= now {
            known.until = now + RETENTION.as_micros() as u64;
        }
        let before = known.owner.map_or(0, |(_, end)| end);
        let lease = now + ask.lease.as_micros() as u64;
        let lease = if mine { lease.max(before) } else { lease };
        let expired = !mine && known.owner.is_some();
        known.sticky |= expired || matches!(ask.stage, Stage::Attempt { uncertain: true, .. });
        prop_assert_eq!(takeover, known.sticky, "takeover");
        (known.owner, known.token) = (Some((ask.nonce, lease)), token);
        known.until = known.until.max(lease);
        Ok(())
    }

    /// Whatever is held, other content cannot have it.
    async fn no_other_content_gets_it(&self, ask: &Ask) -> TestCaseResult {
        if self.known.until <= self.now || self.known.token.is_none() {
            return Ok(());
        }
        let mut other = again(ask);
        let mut content = record("a", "y");
        content.retention = RETENTION;
        (other.nonce, other.record) = (nonce(), Some(content));
        let decision = self.store.admit(&other).await.unwrap().decision;
        let is_mismatch = matches!(decision, Decision::Mismatch { .. });
        prop_assert!(is_mismatch, "other content got {:?}", decision);
        Ok(())
    }

    async fn settle(&mut self, nonce: usize, ending: Ending) -> TestCaseResult {
        self.results += 1;
        let sealed = self.results.to_be_bytes();
        let ask = self.ask(nonce);
        let verdict = ending.at(self.now, &sealed);
        let settled = self.store.settle(&settlement(&ask, verdict.clone())).await.unwrap();
        let mine = self.is_owner(ask.nonce);
        prop_assert_eq!(settled == Settled::Closed, mine, "the fence");
        if !mine {
            return Ok(());
        }
        let known = &mut self.known;
        known.owner = None;
        match (verdict, ending) {
            (Verdict::Done { sealed, .. }, Ending::Done { expires_s }) => {
                let life = |seconds: u64| self.now + seconds.saturating_sub(30) * 1_000_000;
                let end = expires_s.map_or(u64::MAX, life).min(known.until);
                known.result = Some((sealed, end));
            }
            (Verdict::Uncertain, _) => known.sticky = true,
            _ if known.sticky => {}
            _ => *known = Known::default(),
        }
        Ok(())
    }
}

const NONCES: usize = 4;

const RETENTION: Duration = Duration::from_secs(2_000);
