//! The faults of a plan, each from its start to its end. The first gateway is stopped, but never
//! ended, so that its metrics tell of all its calls.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::RwLock;

use super::callers::Caller;
use super::house::{House, REPLICAS};
use super::ledger::Stretch;
use super::links::{Link, Weather};
use super::plan::{Fault, Kind, Plan};
use crate::support::until;

/// Causes all faults of the plan; counts them by kind.
pub async fn suffer(house: &House, caller: &Caller, plan: &Plan) -> BTreeMap<Kind, u32> {
    let alone = RwLock::new(());
    let sufferer = Sufferer { house, caller, alone: &alone, begun: Instant::now() };
    let lanes =
        tokio::join!(sufferer.lane(&plan[0]), sufferer.lane(&plan[1]), sufferer.lane(&plan[2]));
    let mut kinds = BTreeMap::new();
    for kind in [lanes.0, lanes.1, lanes.2].concat() {
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

struct Sufferer<'a> {
    house: &'a House,
    caller: &'a Caller,
    /// Held by all faults, and alone by the one that none may disturb.
    alone: &'a RwLock<()>,
    begun: Instant,
}

impl Sufferer<'_> {
    async fn lane(&self, faults: &[Fault]) -> Vec<Kind> {
        let mut kinds = Vec::new();
        for fault in faults {
            tokio::time::sleep_until((self.begun + fault.at).into()).await;
            println!("{fault}");
            if fault.kind == Kind::RedisGone {
                let _alone = self.alone.write().await;
                self.redis_gone().await;
            } else {
                let _beside = self.alone.read().await;
                self.suffer(fault).await;
            }
            kinds.push(fault.kind);
        }
        kinds
    }

    async fn suffer(&self, fault: &Fault) {
        let one = fault.which % REPLICAS;
        let (house, ledger, span) = (self.house, &self.caller.ledger, fault.span);
        let replica = &house.replicas[one];
        match fault.kind {
            Kind::RedisCut | Kind::RedisLinkFrozen | Kind::RedisSlow | Kind::RedisRefused => {
                ledger.without_redis([one]);
                if let Some(link) = &replica.to_redis {
                    weather(link, fault.kind, span).await;
                }
                ledger.over([one]);
            }
            Kind::RedisFrozen
            | Kind::RedisKilled
            | Kind::RedisFlushed
            | Kind::ScriptsFlushed
            | Kind::FailedOver
            | Kind::SlotMoved
            | Kind::RedisGone => self.servers(fault).await,
            Kind::ConnectCut | Kind::ConnectFrozen | Kind::ConnectSlow | Kind::ConnectRefused => {
                weather(&replica.to_connect, fault.kind, span).await;
            }
            Kind::CollectorCut | Kind::CollectorFrozen | Kind::CollectorRefused => {
                weather(&replica.to_collector, fault.kind, span).await;
            }
            Kind::GatewayKilled | Kind::GatewayTerminated => {
                let one = 1 + fault.which % (REPLICAS - 1);
                self.end(one, fault.kind == Kind::GatewayKilled, span).await;
            }
            Kind::GatewayStopped => {
                // Its answers of Redis come late, too.
                ledger.without_redis([one]);
                replica.signal("STOP").await;
                let from = Instant::now();
                ledger.book().trouble.stops.push(Stretch { replica: one, from, to: None });
                tokio::time::sleep(span).await;
                replica.signal("CONT").await;
                if let Some(stop) = ledger.book().trouble.stops.last_mut() {
                    stop.to = Some(Instant::now());
                }
                ledger.over([one]);
            }
        }
    }

    /// All gateways may notice a fault of the servers.
    async fn servers(&self, fault: &Fault) {
        let (ledger, span, which) = (&self.caller.ledger, fault.span, fault.which);
        let mut servers = self.house.servers.lock().await;
        ledger.without_redis(0..REPLICAS);
        match fault.kind {
            Kind::RedisFrozen => servers.freeze(which, span).await,
            Kind::RedisKilled => servers.kill(which, span / 2).await,
            Kind::RedisFlushed => servers.flush().await,
            Kind::FailedOver => servers.fail_over().await,
            Kind::SlotMoved => {
                let upstream = ["main", "wide"][which % 2];
                servers.move_slot(upstream, which / 2, span / 2).await;
            }
            _ => servers.flush_scripts().await,
        }
        if servers.loses_by(fault.kind) {
            ledger.lost();
        }
        ledger.over(0..REPLICAS);
    }

    /// All links of a gateway's last incarnation go with it.
    async fn end(&self, one: usize, kills: bool, span: Duration) {
        let replica = &self.house.replicas[one];
        self.caller.ledger.book().trouble.ends.push((one, Instant::now()));
        if kills {
            replica.kill().await;
            tokio::time::sleep(span / 4).await;
        } else {
            let code = replica.terminate().await;
            assert_eq!(code, Some(0), "a drain's exit code");
        }
        replica.start().await;
    }

    async fn redis_gone(&self) {
        let (house, ledger) = (self.house, &self.caller.ledger);
        let servers = house.servers.lock().await;
        ledger.without_redis(0..REPLICAS);
        self.caller.eager.store(true, Ordering::Relaxed);
        let links = || house.replicas.iter().filter_map(|replica| replica.to_redis.as_ref());
        for link in links() {
            link.turn(Weather::Refused);
            link.cut();
        }
        servers.pause();
        for replica in &house.replicas {
            until("the gateway knows that it has no Redis", async || {
                replica.metric("participant_gateway_store_degraded", "").await > 0.0
            })
            .await;
        }
        let from = Instant::now();
        tokio::time::sleep(GONE).await;
        let gone = Stretch { replica: 0, from, to: Some(Instant::now()) };
        ledger.book().trouble.gone.push(gone);
        self.caller.eager.store(false, Ordering::Relaxed);
        servers.resume().await;
        for link in links() {
            link.turn(Weather::Fair);
        }
        if servers.loses_by(Kind::RedisGone) {
            ledger.lost();
        }
        ledger.over(0..REPLICAS);
    }
}

/// What a fault does to a link.
async fn weather(link: &Link, kind: Kind, span: Duration) {
    match kind {
        Kind::RedisCut | Kind::ConnectCut | Kind::CollectorCut => return link.cut(),
        Kind::RedisSlow | Kind::ConnectSlow => link.turn(Weather::Slow(span / 4)),
        Kind::RedisLinkFrozen | Kind::ConnectFrozen | Kind::CollectorFrozen => {
            link.turn(Weather::Frozen);
        }
        _ => {
            link.turn(Weather::Refused);
            link.cut();
        }
    }
    tokio::time::sleep(span).await;
    link.turn(Weather::Fair);
}

/// How long no gateway has Redis.
const GONE: Duration = Duration::from_secs(5);
