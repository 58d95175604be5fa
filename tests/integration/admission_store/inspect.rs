//! What the operator's commands ask of Redis: levels that cost nothing, and records that are looked
//! at or forgotten.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use participant_gateway::admission::redis::RedisStore;
use participant_gateway::admission::{Forgotten, RecordSeen, RecordState, Settled, UpstreamLevels};
use participant_gateway::domain::{Instances, Tenant, Upstream};

use super::world::*;

impl World {
    fn redis_store(&self) -> &RedisStore {
        match &*self.store {
            AnyStore::Redis(store) => store,
            AnyStore::Memory(_) => panic!("only Redis is looked at"),
        }
    }

    async fn look(&self) -> RecordSeen {
        self.redis_store().record(&self.scope.upstream, "record-of-a").await.unwrap()
    }

    async fn forget(&self, stamp: &[u8]) -> Forgotten {
        self.redis_store()
            .forget(&self.scope.upstream, "record-of-a", stamp)
            .await
            .unwrap()
    }

    async fn levels(&self) -> UpstreamLevels {
        let upstream = Upstream {
            name: self.scope.upstream.clone(),
            region: "us-east-1".to_owned(),
            instances: Instances::Any,
            endpoint_url: None,
            role_arn: None,
            external_id: None,
            rate: self.scope.rate,
            burst: self.scope.burst,
            max_wait: Duration::ZERO,
            connect_timeout: Duration::ZERO,
            attempt_timeout: Duration::ZERO,
            max_attempts: 1,
        };
        let tenant = Tenant {
            name: self.scope.tenant.clone(),
            instances: Instances::Any,
            roles: BTreeSet::new(),
            requires_client_token: false,
            limits: self.scope.limits,
        };
        self.redis_store().levels(&upstream, &[&tenant]).await.unwrap()
    }

    fn in_seconds(&self, seconds: f64) -> SystemTime {
        let start = SystemTime::UNIX_EPOCH + Duration::from_micros(START);
        start + Duration::from_secs_f64(seconds)
    }
}

#[tokio::test]
async fn a_record_is_seen_in_each_of_its_states() {
    let world = World::redis().await;
    assert_eq!(world.look().await.state, RecordState::Absent);

    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.pass(5.0);
    let seen = world.look().await;
    assert_eq!(seen.state, RecordState::InFlight { until: world.in_seconds(15.0) });
    assert_eq!(seen.now, world.in_seconds(5.0));
    assert_eq!(seen.ends, Some(world.in_seconds(86_400.0)));
    let proof = seen.proof.unwrap();
    assert_eq!((proof.version, proof.fingerprint.as_str()), (1, "print-of-x"));
    assert_eq!(proof.mac, "mac-of-a-x");

    world.pass(10.5);
    assert_eq!(world.look().await.state, RecordState::Uncertain, "the lease has run out");
    let takeover = world.keyed("a", "x");
    assert!(world.granted(&takeover).await.takeover);
    world.settle(&takeover, done_until("sealed", 130)).await;
    let done = RecordState::Done { until: world.in_seconds(100.0), sealed: b"sealed".to_vec() };
    assert_eq!(world.look().await.state, done);
    world.pass(84.6);
    assert_eq!(world.look().await.state, RecordState::Expired);
    world.pass(86_300.0);
    assert_eq!(world.look().await.state, RecordState::Absent);
}

#[tokio::test]
async fn a_record_in_flight_stands_and_a_stale_settlement_finds_nothing_to_close() {
    let world = World::redis().await;
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    let seen = world.look().await;
    for stamp in [&[][..], &seen.stamp] {
        assert_eq!(world.forget(stamp).await, Forgotten::InFlight);
    }
    world.pass(15.5);
    assert_eq!(world.forget(&[]).await, Forgotten::Gone);
    assert_eq!(world.forget(&[]).await, Forgotten::Absent);
    // The first gateway was frozen, and comes back.
    assert_eq!(world.settle(&call, done("late")).await, Settled::NotOurs);
    assert_eq!(world.look().await.state, RecordState::Absent);
    let anew = world.keyed("a", "y");
    assert!(!world.granted(&anew).await.takeover);
}

#[tokio::test]
async fn a_record_that_has_changed_since_it_was_seen_stands() {
    let world = World::redis().await;
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.settle(&call, Ending::Uncertain.at(START, b"")).await;
    let uncertain = world.look().await;
    let takeover = world.keyed("a", "x");
    world.granted(&takeover).await;
    assert_eq!(world.forget(&uncertain.stamp).await, Forgotten::InFlight);
    world.settle(&takeover, done("sealed")).await;
    assert_eq!(world.forget(&uncertain.stamp).await, Forgotten::Changed);
    let done = world.look().await;
    assert!(matches!(done.state, RecordState::Done { .. }), "{done:?}");
    assert_eq!(world.forget(&done.stamp).await, Forgotten::Gone);
}

#[tokio::test]
async fn levels_are_those_of_the_next_decision_and_asking_changes_none() {
    let mut world = World::redis().await;
    world.tenant_limit(2.0, 10);
    world.budget(4.0, 8);
    world.scope.limits.committed = rate(1.0);
    world.scope.committed_burst = 1;
    let full = world.levels().await;
    assert_eq!((full.level, full.factor, full.queue), (8.0, 1.0, 0));
    assert_eq!((full.tenants[0].level, full.tenants[0].share), (10.0, 1.0));
    let mut grants = Vec::new();
    for _ in 0..6 {
        let call = world.call();
        grants.push((world.granted(&call).await, call));
    }
    let levels = world.levels().await;
    assert_eq!((levels.level, levels.tenants[0].level), (2.0, 4.0));
    assert_eq!((levels.tenants[0].share, levels.tenants[0].in_flight), (0.0, 6));
    world.pass(0.25);
    let quota = world.quota().await;
    for _ in 0..3 {
        let levels = world.levels().await;
        assert!((levels.level - 3.0).abs() < 1e-6 && (levels.tenants[0].share - 0.25).abs() < 1e-6);
        assert_eq!(levels.tenants[0].level.floor(), f64::from(quota.remaining));
        assert_eq!(levels.tenants[0].in_flight, quota.in_flight);
    }
    assert_eq!(world.quota().await, quota);

    world.pass(1.0);
    let (grant, call) = &grants[0];
    world.throttle(call, grant.at).await;
    assert!((world.levels().await.factor - 0.5).abs() < 1e-9);
}

#[tokio::test]
async fn the_queue_is_those_who_still_wait() {
    let mut world = World::redis().await;
    world.budget(1.0, 1);
    world.granted(&world.call()).await;
    let queued = waiting(world.call(), 10_000);
    let after = world.told_to_ask_again(&queued).await;
    let levels = world.levels().await;
    assert_eq!((levels.queue, levels.tenants[0].queue), (1, 1));
    assert_eq!(levels.tenants[0].in_flight, 2);
    world.pass(after.as_secs_f64() + 0.3);
    assert_eq!(world.levels().await.queue, 0, "it has not come back");
}
