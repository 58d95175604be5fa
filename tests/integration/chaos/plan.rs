//! What fails, and when: made of the seed alone, so that a run can be repeated with fewer faults.

use std::fmt;
use std::time::Duration;

/// How Redis is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    Standalone,
    Sentinel,
    Cluster,
}

impl Topology {
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Standalone, Self::Sentinel, Self::Cluster]
            .into_iter()
            .find(|topology| topology.to_string() == word)
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standalone => "standalone",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Links from one gateway to Redis; with Sentinel, to the sentinel.
    RedisCut,
    RedisLinkFrozen,
    RedisSlow,
    RedisRefused,
    /// The servers themselves.
    RedisFrozen,
    RedisKilled,
    RedisFlushed,
    ScriptsFlushed,
    FailedOver,
    SlotMoved,
    /// No gateway has Redis, for longer, while callers ask for more than there is.
    RedisGone,
    ConnectCut,
    ConnectFrozen,
    ConnectSlow,
    ConnectRefused,
    CollectorCut,
    CollectorFrozen,
    CollectorRefused,
    GatewayKilled,
    GatewayTerminated,
    GatewayStopped,
}

fn of_redis(topology: Topology) -> &'static [Kind] {
    match topology {
        Topology::Standalone => &[
            Kind::RedisCut,
            Kind::RedisLinkFrozen,
            Kind::RedisSlow,
            Kind::RedisRefused,
            Kind::RedisFrozen,
            Kind::RedisKilled,
            Kind::RedisFlushed,
            Kind::ScriptsFlushed,
        ],
        Topology::Sentinel => &[
            Kind::RedisCut,
            Kind::RedisRefused,
            Kind::RedisFrozen,
            Kind::RedisFlushed,
            Kind::ScriptsFlushed,
            Kind::FailedOver,
        ],
        Topology::Cluster => &[
            Kind::RedisFrozen,
            Kind::RedisKilled,
            Kind::RedisFlushed,
            Kind::ScriptsFlushed,
            Kind::SlotMoved,
        ],
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// Its number in the plan: what `CHAOS_FAULTS` chooses by.
    pub number: usize,
    /// At the earliest; since the start.
    pub at: Duration,
    pub kind: Kind,
    /// Of which gateway, or of which server.
    pub which: usize,
    pub span: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, at, kind, which, span } = self;
        write!(f, "fault {number} at {at:.1?}: {kind:?}, {which}, {span:?}")
    }
}

/// The faults, by lane.
pub type Plan = [Vec<Fault>; 3];

/// For a run of this length; `chosen`: only these.
pub fn plan(seed: u64, topology: Topology, length: Duration, chosen: Option<&[usize]>) -> Plan {
    let mut number = 0;
    let mut lane = |index: usize| {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_add(index as u64));
        let kinds = if index == 0 { of_redis(topology) } else { LANES[index] };
        let (mut faults, mut at) = (Vec::new(), Duration::ZERO);
        // Once in the middle, and in a long run once a minute.
        let mut gone = (length / 2).min(GONE_EVERY / 2);
        while at < length {
            let span = Duration::from_millis(rng.u64(100..900));
            let pause = Duration::from_millis(rng.u64(PAUSE_MS));
            let (which, mut kind) = (rng.usize(..), kinds[rng.usize(..kinds.len())]);
            at += pause;
            if index == 0 && at >= gone {
                kind = Kind::RedisGone;
                gone += GONE_EVERY;
            }
            faults.push(Fault { number, at, kind, which, span });
            number += 1;
            at += span;
        }
        if let Some(chosen) = chosen {
            faults.retain(|fault| chosen.contains(&fault.number));
        }
        faults
    };
    [lane(0), lane(1), lane(2)]
}

/// Faults of one lane follow each other; those of several overlap.
const LANES: [&[Kind]; 3] = [
    &[],
    &[
        Kind::ConnectCut,
        Kind::ConnectFrozen,
        Kind::ConnectSlow,
        Kind::ConnectRefused,
        Kind::CollectorCut,
        Kind::CollectorFrozen,
        Kind::CollectorRefused,
    ],
    &[Kind::GatewayKilled, Kind::GatewayTerminated, Kind::GatewayStopped],
];

const PAUSE_MS: std::ops::Range<u64> = 200..2_000;

const GONE_EVERY: Duration = Duration::from_secs(60);

#[test]
fn a_plan_is_its_seeds_and_a_choice_of_it_keeps_number_time_and_kind() {
    let length = Duration::from_secs(40);
    for topology in [Topology::Standalone, Topology::Sentinel, Topology::Cluster] {
        let whole = plan(7, topology, length, None);
        assert_eq!(whole, plan(7, topology, length, None));
        assert_ne!(whole, plan(8, topology, length, None));
        let all = whole.concat();
        assert!(all.iter().zip(0..).all(|(fault, number)| fault.number == number));
        assert!(all.iter().any(|fault| fault.kind == Kind::RedisGone));
        let some = plan(7, topology, length, Some(&[1, 4, 9])).concat();
        assert_eq!(some, [all[1], all[4], all[9]]);
    }
}
