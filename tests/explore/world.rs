//! What the explorer sees of a store: who asks what, what is answered, what stands there.
//!
//! Every time is in milliseconds from now, by the upstream's clock. What has ended is at 0, since a
//! store compares every end with now alone. So two states are one if they differ only in how long
//! ago something ended.

/// Milliseconds from now.
pub type Ms = i32;

/// A call, by its place in the scenario. Its nonce is made of it.
pub type Who = u8;

/// What a call is about: the same content has the same fingerprint and upstream token.
pub type Content = u8;

/// What is asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// `admit`.
    Ask { who: Who, stage: Stage, content: Content, distrust: Option<Who> },
    /// `settle`.
    Settle { who: Who, verdict: Verdict },
}

impl Op {
    pub fn who(self) -> Who {
        match self {
            Self::Ask { who, .. } | Self::Settle { who, .. } => who,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    Call,
    Attempt { uncertain: bool },
    Renew,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    Done,
    Release,
    Refund,
    Uncertain,
}

/// What a store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `token`: whose content's upstream token it is.
    Granted {
        sticky: bool,
        token: Content,
    },
    /// Whose result it is.
    Replay(Who),
    Mismatch(Content),
    /// What is left of the lease.
    Busy(Ms),
    Tombstone,
    Lost,
    Refused,
    AskAgain(Ms),
    /// Whether the claim was the settling call's.
    Settled(bool),
    /// Nothing that a store may answer, or may leave behind.
    Broken(String),
}

impl Reply {
    /// Its kind, for the list of those that were seen.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Granted { sticky: false, .. } => "granted",
            Self::Granted { sticky: true, .. } => "granted as uncertain",
            Self::Replay(_) => "replay",
            Self::Mismatch(_) => "mismatch",
            Self::Busy(_) => "busy",
            Self::Tombstone => "tombstone",
            Self::Lost => "lost",
            Self::Refused => "refused",
            Self::AskAgain(_) => "ask again",
            Self::Settled(true) => "closed",
            Self::Settled(false) => "not ours",
            Self::Broken(_) => "broken",
        }
    }

    /// Every kind that a store may answer.
    pub const KINDS: [&str; 11] = [
        "granted",
        "granted as uncertain",
        "replay",
        "mismatch",
        "busy",
        "tombstone",
        "lost",
        "refused",
        "ask again",
        "closed",
        "not ours",
    ];
}

/// Everything that stands in the store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    pub record: Option<Record>,
    /// The tenant's places in flight and their ends, by nonce.
    pub flights: Vec<(Who, Ms)>,
    /// The queue in order of arrival.
    pub queue: Vec<Queued>,
    /// The largest tag that has started, and the tenant's last start.
    pub tags: (i64, Option<i64>),
    /// How many queued calls count as having paid.
    pub queued: i64,
    /// What is left of the tenant's ceiling and of the upstream's budget, in thousandths of a call.
    pub ceiling: i64,
    pub budget: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    pub state: RecordState,
    pub holder: Option<Who>,
    pub content: Content,
    pub sticky: bool,
    pub lease: Ms,
    pub until: Ms,
    pub body_until: Option<Ms>,
    /// Whose result it keeps.
    pub body: Option<Who>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordState {
    InFlight,
    Done,
    Tombstone,
    Uncertain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Queued {
    pub who: Who,
    pub kind: Kind,
    pub dropped: Ms,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Call,
    Attempt,
}

/// A part of the store's data that Redis loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    Everything,
    Record,
    Flights,
    /// Of a record that has ended. Redis may do so at any time.
    Ended,
}

/// The limits that a scenario runs under.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The budget in calls a second.
    pub rate: f64,
    pub burst: u32,
    pub tenant_burst: u32,
    pub in_flight: u32,
}

impl Limits {
    /// So much that no call is refused or queued, and so slow that no level refills.
    pub const AMPLE: Self = Self { rate: 1e-9, burst: 1_000, tenant_burst: 1_000, in_flight: 3 };
    /// One call a second, and none to begin with: calls queue.
    pub const SCARCE: Self = Self { rate: 1.0, burst: 1, tenant_burst: 1_000, in_flight: 3 };
    /// Nothing refills it, so that it counts calls exactly.
    pub const TENANT_RATE: f64 = 1e-9;

    /// Whether calls queue. Only then does the budget's level decide anything.
    pub fn queues(&self) -> bool {
        self.burst == 1
    }

    /// What refills of the budget meanwhile, up to its burst.
    pub fn refilled(&self, budget: i64, ms: Ms) -> i64 {
        let gained = (self.rate * f64::from(ms)).round() as i64;
        (budget + gained).min(i64::from(self.burst) * 1_000)
    }
}

impl View {
    /// The store before the first call. One call has started. Half of the tenant's ceiling is left:
    /// so no bound of the level hides a charge or a refund.
    pub fn first(limits: &Limits) -> Self {
        let ceiling = i64::from(limits.tenant_burst) * 500;
        let budget = (i64::from(limits.burst) - 1) * 1_000;
        Self { ceiling, budget, ..Self::default() }
    }

    /// The same, so much later.
    pub fn after(mut self, ms: Ms, limits: &Limits) -> Self {
        let pass = |time: &mut Ms| *time = (*time - ms).max(0);
        if let Some(record) = &mut self.record {
            pass(&mut record.lease);
            pass(&mut record.until);
            if let Some(until) = &mut record.body_until {
                pass(until);
            }
        }
        self.flights.iter_mut().for_each(|(_, end)| pass(end));
        self.queue.iter_mut().for_each(|queued| pass(&mut queued.dropped));
        self.budget = limits.refilled(self.budget, ms);
        self
    }

    /// The same without what was lost. Levels are full then; where they are ample, that decides
    /// nothing.
    pub fn without(mut self, loss: Loss, limits: &Limits) -> Self {
        match loss {
            Loss::Record | Loss::Ended => self.record = None,
            Loss::Flights => self.flights.clear(),
            Loss::Everything => {
                let full = i64::from(limits.burst) * 1_000;
                let budget = if limits.queues() { full } else { self.budget };
                self = Self { ceiling: self.ceiling, budget, ..Self::default() };
            }
        }
        self
    }

    /// Everything that ends, and has not ended yet.
    pub fn ends(&self) -> impl Iterator<Item = Ms> {
        let record = self
            .record
            .iter()
            .flat_map(|record| [record.lease, record.until, record.body_until.unwrap_or(0)]);
        let flights = self.flights.iter().map(|(_, end)| *end);
        let queue = self.queue.iter().map(|queued| queued.dropped);
        record.chain(flights).chain(queue).filter(|end| *end > 0)
    }
}

/// How long a grant holds: `LEASE` of the gateway.
pub const LEASE: Ms = 3_000;

/// How long a result is handed out. Shorter than the retention, so that tombstones are seen.
pub const RESULT: Ms = 5_000;

/// How long a record lives.
pub const RETENTION: Ms = 9_000;

/// The longest that a call may queue: for the next token, and not for the one after it.
pub const LONGEST_WAIT: Ms = 1_500;

/// Leases are renewed so often, and time passes in such steps.
pub const STEP: Ms = 1_000;
