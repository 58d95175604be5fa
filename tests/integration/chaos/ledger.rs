//! The reports of callers, Connect and the faults so far: sums for each content, so that a run of
//! millions of calls fits in memory. A report that breaks a promise by itself is noted at once.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use participant_gateway::simulator::{Attempt, Journal, Participant};
use tonic::Code;
use uuid::Uuid;

use super::callers::{Call, End};
use super::house::REPLICAS;

/// One ledger of a run, for all who write in it.
#[derive(Clone)]
pub struct Ledger(Arc<Mutex<Book>>);

/// What is written.
pub struct Book {
    pub begun: Instant,
    /// How long after its deadline a caller may get its answer.
    slack: Duration,
    pub contents: HashMap<String, Content>,
    /// Calls, by how they ended.
    pub ends: BTreeMap<String, u64>,
    /// Of each gateway: what its callers heard, and how many did not.
    pub heard: [BTreeMap<String, u64>; REPLICAS],
    pub unheard: [u64; REPLICAS],
    /// The latest answer, after its deadline.
    pub latest: Duration,
    /// Attempts by upstream, and participants by tenant and upstream, in each second.
    pub attempts: BTreeMap<String, Vec<u32>>,
    pub participants: BTreeMap<(String, String), Vec<u32>>,
    pub trouble: Trouble,
    pub violations: Vec<Violation>,
    /// Broken promises, unless a gateway turns out to have missed Redis in one of the calls.
    pub suspected: Vec<(Violation, [Stretch; 2])>,
    /// Calls within the limits since this time: served, and failed.
    pub goodput: Option<(Instant, [u64; 2])>,
    last_attempt: Option<Uuid>,
    last_participant: Option<String>,
}

/// A promise that was broken: the invariant's number, and how.
#[derive(Debug, Clone)]
pub struct Violation(pub u8, pub String);

/// What may become one participant, and no more.
#[derive(Debug, Default)]
pub struct Content {
    pub call: Option<Call>,
    pub attempts: u32,
    upstream_token: Option<String>,
    made: Option<Uuid>,
    told: Option<(Uuid, u64)>,
    /// When a caller first heard OK, and from whom.
    pub ok: Option<Stretch>,
}

/// What excuses what. Times to come are still open.
#[derive(Debug, Default)]
pub struct Trouble {
    /// Redis' data was lost: each time the buckets are full again.
    pub losses: Vec<Instant>,
    /// A gateway may have been without Redis: it then had its share of every limit.
    pub local: Vec<Stretch>,
    /// A gateway was stopped.
    pub stops: Vec<Stretch>,
    /// A gateway was ended.
    pub ends: Vec<(usize, Instant)>,
    /// No gateway had Redis, and each knew it.
    pub gone: Vec<Stretch>,
}

#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    pub replica: usize,
    pub from: Instant,
    pub to: Option<Instant>,
}

impl Stretch {
    /// A call that ends now.
    pub fn until_now(replica: usize, from: Instant) -> Self {
        Self { replica, from, to: Some(Instant::now()) }
    }

    /// How long it lasted between these times.
    pub fn within(&self, from: Instant, to: Instant) -> Duration {
        self.to.unwrap_or(to).min(to).saturating_duration_since(self.from.max(from))
    }
}

impl Ledger {
    pub fn new(slack: Duration) -> Self {
        Self(Arc::new(Mutex::new(Book {
            begun: Instant::now(),
            slack,
            contents: HashMap::new(),
            ends: BTreeMap::new(),
            heard: Default::default(),
            unheard: [0; REPLICAS],
            latest: Duration::ZERO,
            attempts: BTreeMap::new(),
            participants: BTreeMap::new(),
            trouble: Trouble::default(),
            violations: Vec::new(),
            suspected: Vec::new(),
            goodput: None,
            last_attempt: None,
            last_participant: None,
        })))
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap()
    }

    /// Notes what has come to Connect since the last time.
    pub fn harvest(&self, journal: &Journal) {
        let (attempts, participants) = (journal.attempts(), journal.participants());
        let mut book = self.book();
        let seen = book.last_attempt;
        let fresh = attempts.iter().rposition(|attempt| Some(attempt.request_id) == seen);
        for attempt in &attempts[fresh.map_or(0, |at| at + 1)..] {
            book.attempted(attempt);
        }
        book.last_attempt = attempts.last().map(|attempt| attempt.request_id);
        let seen = book.last_participant.take();
        let fresh = participants
            .iter()
            .rposition(|made| Some(&made.participant_id) == seen.as_ref());
        for participant in &participants[fresh.map_or(0, |at| at + 1)..] {
            book.made(participant);
        }
        book.last_participant = participants.last().map(|made| made.participant_id.clone());
    }

    /// From now on, until [`Self::over`], these gateways may be without Redis.
    pub fn without_redis(&self, replicas: impl IntoIterator<Item = usize>) {
        let mut book = self.book();
        let stretch = |replica| Stretch { replica, from: Instant::now(), to: None };
        book.trouble.local.extend(replicas.into_iter().map(stretch));
    }

    /// They have it again soon: once a breaker has found out, and a probe has closed it.
    pub fn over(&self, replicas: impl IntoIterator<Item = usize>) {
        let mut book = self.book();
        for replica in replicas {
            let of_it = |stretch: &&mut Stretch| stretch.replica == replica && stretch.to.is_none();
            if let Some(stretch) = book.trouble.local.iter_mut().find(of_it) {
                stretch.to = Some(Instant::now() + NOTICED);
            }
        }
    }

    /// A gateway has missed Redis since its last look at it, whatever the reason.
    pub fn missed_redis(&self, replica: usize, since: Instant) {
        const EARLIER: Duration = Duration::from_secs(1);
        let from = since.checked_sub(EARLIER).unwrap_or(since);
        let to = Some(Instant::now() + NOTICED);
        self.book().trouble.local.push(Stretch { replica, from, to });
    }

    pub fn lost(&self) {
        self.book().trouble.losses.push(Instant::now());
    }
}

impl Trouble {
    /// Whether the gateway had Redis all the while, and nothing was lost later.
    pub fn leaves_alone(&self, call: &Stretch) -> bool {
        let Some(to) = call.to else { return false };
        let touches = |local: &Stretch| {
            local.replica == call.replica && !local.within(call.from, to).is_zero()
        };
        !self.local.iter().any(touches) && self.losses.iter().all(|loss| *loss < call.from)
    }
}

impl Book {
    pub fn violated(&mut self, invariant: u8, how: impl Display) {
        if self.violations.len() < MOST_VIOLATIONS {
            self.violations.push(Violation(invariant, how.to_string()));
        }
    }

    /// Once the gateways have told whether they had Redis.
    pub fn judge_the_suspected(&mut self) {
        for (Violation(invariant, how), calls) in std::mem::take(&mut self.suspected) {
            if calls.iter().all(|call| self.trouble.leaves_alone(call)) {
                self.violated(invariant, how);
            }
        }
    }

    /// A call, as its caller saw it.
    pub fn heard(&mut self, call: &Call, replica: usize, times: Times, end: &End) {
        let now = Instant::now();
        let stopped = self.trouble.stops.iter().filter(|stop| stop.replica == replica);
        let stopped: Duration = stopped.map(|stop| stop.within(times.started, now)).sum();
        let late = times.started.elapsed().saturating_sub(times.deadline + stopped);
        self.latest = self.latest.max(late);
        if late > self.slack {
            self.violated(
                6,
                format!("{late:?} after its deadline, at {replica}: {end:?} of {call:?}"),
            );
        }
        *self.ends.entry(end.word()).or_default() += 1;
        match end {
            End::Made { .. } => *self.heard[replica].entry("OK".to_owned()).or_default() += 1,
            End::Refused { code, reason } => {
                *self.heard[replica].entry(name(*code)).or_default() += 1;
                if reason == "GATEWAY_BUG" {
                    self.violated(6, format!("a bug: {call:?}"));
                }
            }
            End::Broken | End::Left => {
                self.unheard[replica] += 1;
                if matches!(end, End::Broken) && replica == 0 {
                    self.violated(6, format!("a connection to who lives broke: {call:?}"));
                }
            }
        }
        if let Some((since, counts)) = &mut self.goodput
            && times.started > *since
            && call.upstream == "wide"
            && !matches!(end, End::Left)
            && end.word() != "CLIENT_TOKEN_REUSED"
        {
            counts[usize::from(!matches!(end, End::Made { .. }))] += 1;
        }
        let content = self.contents.entry(call.content.clone()).or_default();
        content.call.get_or_insert_with(|| call.clone());
        if let End::Made { participant_id, participant_token, .. } = end {
            let told = (*participant_id, *participant_token);
            let former = *content.told.get_or_insert(told);
            content
                .ok
                .get_or_insert(Stretch { replica, from: times.started, to: Some(now) });
            if former != told {
                self.violated(3, format!("told otherwise before: {call:?}"));
            }
        }
    }

    fn attempted(&mut self, attempt: &Attempt) {
        let (Some(name), Some(token)) = (&attempt.display_name, &attempt.client_token) else {
            return self.violated(1, format!("an attempt without a token: {attempt:?}"));
        };
        let upstream = attempt.instance_id.clone().unwrap_or_default();
        let second = self.begun_at(attempt.received_at);
        count(self.attempts.entry(upstream).or_default(), second);
        let content = self.contents.entry(name.clone()).or_default();
        content.attempts += 1;
        let former = content.upstream_token.get_or_insert_with(|| token.clone());
        if former != token {
            self.violated(1, format!("{name} was sent with two tokens"));
        }
    }

    fn made(&mut self, participant: &Participant) {
        let name = participant.call.display_name.clone().unwrap_or_default();
        let tenant = name.split('/').next().unwrap_or_default().to_owned();
        let second = self.begun_at(participant.created_at);
        let key = (tenant, participant.call.instance_id.clone());
        count(self.participants.entry(key).or_default(), second);
        let id = participant.participant_id.parse().unwrap_or_default();
        let former = self.contents.entry(name.clone()).or_default().made.replace(id);
        if former.is_some() {
            self.violated(2, format!("made twice: {name}"));
        }
    }

    /// Whole seconds since the start, of Connect's own time.
    fn begun_at(&self, time: jiff::Timestamp) -> usize {
        let since = jiff::Timestamp::now().duration_since(time);
        let ago = Duration::try_from(since).unwrap_or_default();
        self.begun.elapsed().saturating_sub(ago).as_secs() as usize
    }

    /// At the end: the callers of this content were told what Connect made.
    pub fn told_is_made(&mut self) {
        let wrong = self
            .contents
            .iter()
            .filter(|(_, content)| content.told.is_some_and(|(id, _)| content.made != Some(id)));
        // A content begins with its tenant: what was made for another's is not this one's.
        let wrong: Vec<_> = wrong.map(|(name, _)| name.clone()).take(3).collect();
        for name in wrong {
            self.violated(8, format!("not what Connect made for it: {name}"));
        }
    }
}

/// When a call began, and by when its answer was due.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub started: Instant,
    pub deadline: Duration,
}

fn count(seconds: &mut Vec<u32>, second: usize) {
    if seconds.len() <= second {
        seconds.resize(second + 1, 0);
    }
    seconds[second] += 1;
}

/// As `google.rpc.Code` writes it.
fn name(code: Code) -> String {
    format!("{code:?}").chars().fold(String::new(), |mut words, letter| {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.push(letter.to_ascii_uppercase());
        words
    })
}

/// Until a breaker has found out, and a probe has closed it again.
pub const NOTICED: Duration = Duration::from_secs(3);

/// The first ones tell.
const MOST_VIOLATIONS: usize = 20;
