//! What only Redis can suffer: keys that end, are lost alone, or hold what nobody wrote; a memory
//! that is full.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use participant_gateway::admission::redis::{RedisSettings, RedisStore};
use participant_gateway::admission::{Ask, Decision, Settled, Stage, Store, Verdict};
use participant_gateway::domain::{Rate, share_burst};
use participant_gateway::error::Limit;

use super::world::*;
use crate::support::redis::{RedisServer, text};

const HOUR_US: u64 = 3_600_000_000;

impl World {
    async fn command(&self, words: &[&str]) -> redis::Value {
        self.server.as_ref().unwrap().command(words).await
    }

    fn key(&self, rest: &str) -> String {
        format!("{}:{{main}}:{rest}", self.prefix)
    }

    async fn keys(&self) -> Vec<String> {
        match self.command(&["keys", &format!("{}:*", self.prefix)]).await {
            redis::Value::Array(keys) => keys.iter().map(text).collect(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn four_keys_in_one_slot_and_each_of_them_ends() {
    let mut world = World::redis().await;
    world.tenant_limit(1.0, 300);
    world.budget(1.0, 600);
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    let expect = [
        ("upstream", 86_400),
        ("tenant:acme", 300),
        ("flights:acme", 60),
        ("record:record-of-a", 86_400),
    ];
    let mut keys = world.keys().await;
    keys.sort();
    let mut names: Vec<String> = expect.iter().map(|(rest, _)| world.key(rest)).collect();
    names.sort();
    assert_eq!(keys, names);
    let assert_ttls = async |when: &str| {
        for (rest, seconds) in expect {
            let redis::Value::Int(ttl) = world.command(&["pttl", &world.key(rest)]).await else {
                panic!()
            };
            assert!(ttl > seconds * 1_000 - 10_000, "{when}: {rest} ends in {ttl} ms");
        }
    };
    assert_ttls("claimed").await;
    world.settle(&call, Verdict::Uncertain).await;
    world.quota().await;
    world.granted(&world.call()).await;
    assert_ttls("later").await;
}

#[tokio::test]
async fn every_key_that_any_call_leaves_behind_ends_after_a_minute_at_least() {
    let world = World::redis().await;
    world.quota().await;
    let verdicts =
        [done("sealed"), done_until("sealed", 1), release(), refund(), Verdict::Uncertain];
    for (index, verdict) in verdicts.into_iter().enumerate() {
        let mut call = world.keyed(&format!("token-{index}"), "x");
        call.record.as_mut().unwrap().retention = Duration::from_secs(1);
        (call.lease, call.scope.upstream) =
            (Duration::from_millis(1), name(&format!("upstream-{index}")));
        world.granted(&call).await;
        world.settle(&call, verdict).await;
    }
    for key in world.keys().await {
        let redis::Value::Int(ttl) = world.command(&["pttl", &key]).await else { panic!() };
        assert!(ttl > 55_000, "{key} ends in {ttl} ms");
    }
}

#[tokio::test]
async fn a_level_outlives_the_refill_of_a_rate_that_was_lowered_after_it() {
    let mut world = World::redis().await;
    world.tenant_limit(100.0, 1);
    world.granted(&world.call()).await;
    world.scope.limits.rate = rate(1.0 / 3_600.0);
    world.refused(&world.call()).await;
    let redis::Value::Int(ttl) = world.command(&["pttl", &world.key("tenant:acme")]).await else {
        panic!()
    };
    assert!(ttl > 3_590_000, "it ends in {ttl} ms");
}

#[tokio::test]
async fn what_a_queued_call_holds_outlives_its_wait_though_another_waits_for_less() {
    let mut world = World::redis().await;
    world.budget(0.01, 1);
    world.granted(&world.call()).await;
    world.told_to_ask_again(&waiting(world.call(), 600_000)).await;
    let long = world.told_to_ask_again(&waiting(world.call(), 600_000)).await;
    assert_eq!(long, Duration::from_secs(200));
    world.budget(1.0, 1);
    world.scope.tenant = name("other");
    world.told_to_ask_again(&waiting(world.call(), 600_000)).await;
    for rest in ["queue", "drops", "flights:acme", "tenant:acme"] {
        let redis::Value::Int(ttl) = world.command(&["pttl", &world.key(rest)]).await else {
            panic!()
        };
        assert!(ttl > 200_000, "{rest} ends in {ttl} ms");
    }
}

#[tokio::test]
async fn microseconds_keep_all_their_digits() {
    let world = World::redis().await;
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    let lease = (START + 15_000_000).to_string();
    let score = world
        .command(&["zrange", &world.key("flights:acme"), "0", "-1", "withscores"])
        .await;
    let redis::Value::Array(score) = score else { panic!("{score:?}") };
    assert_eq!(text(&score[1]).parse::<f64>().unwrap().to_string(), lease);
    world.clock.set(START + 14_999_999);
    let left = Decision::Busy { lease: Duration::from_micros(1) };
    assert_eq!(world.decide(&world.keyed("a", "x")).await, left);
    assert_eq!(world.quota().await.in_flight, 1);
    world.clock.set(START + 15_000_000);
    assert_eq!(world.quota().await.in_flight, 0);
}

/// Ways a record can be what we never wrote.
const CORRUPTIONS: [&[&str]; 23] = [
    &["set", "KEY", "text"],
    &["rpush", "KEY", "list"],
    &["hset", "KEY", "other", "layout"],
    &["hset", "KEY", "state", "x"],
    &["hset", "KEY", "state", ""],
    &["hset", "KEY", "sticky", "2"],
    &["hset", "KEY", "times", "soon"],
    &["hset", "KEY", "times", ""],
    &["hset", "KEY", "times", "\u{1}eight times three bytes."],
    &["hset", "KEY", "version", "one"],
    &["hset", "KEY", "version", "300"],
    &["hset", "KEY", "version", "nan"],
    &["hset", "KEY", "version", "0x1"],
    &["hset", "KEY", "version", " 1"],
    &["hset", "KEY", "print", "caf\u{e9}"],
    &["hset", "KEY", "print", "", "mac", ""],
    &["hset", "KEY", "print", "other", "mac", ""],
    &["hset", "KEY", "print", "other", "token", "a b"],
    &["hdel", "KEY", "times"],
    &["hdel", "KEY", "state"],
    &["hdel", "KEY", "mac"],
    &["hdel", "KEY", "token", "print"],
    &["hdel", "KEY", "body"],
];

#[tokio::test]
async fn a_record_that_we_never_wrote_is_taken_over_and_never_an_error_or_a_mismatch() {
    for corruption in CORRUPTIONS {
        let world = World::redis().await;
        let call = world.keyed("a", "x");
        let key = world.key("record:record-of-a");
        let replaces = matches!(corruption[0], "set" | "rpush") || corruption[2] == "other";
        if !replaces {
            world.granted(&call).await;
            world.settle(&call, done("sealed")).await;
        }
        let words: Vec<&str> = corruption
            .iter()
            .map(|word| if *word == "KEY" { key.as_str() } else { word })
            .collect();
        world.command(&words).await;
        let stale = world.decide(&attempt(&world.keyed("a", "x"))).await;
        assert_eq!(stale, Decision::Lost, "{corruption:?}");
        assert_eq!(
            world.settle(&call, done("fenced off")).await,
            Settled::NotOurs,
            "{corruption:?}"
        );
        let next = world.keyed("a", "x");
        assert!(world.granted(&next).await.takeover, "{corruption:?}: uncertain");
        assert!(matches!(world.decide(&call).await, Decision::Busy { .. }), "{corruption:?}");
        world.settle(&next, release()).await;
        assert!(
            matches!(world.decide(&world.keyed("a", "y")).await, Decision::Mismatch { .. }),
            "{corruption:?}"
        );
        assert!(world.granted(&next).await.takeover);
        world.settle(&next, done("mended")).await;
        assert_eq!(world.decide(&call).await, replay("mended"), "{corruption:?}");
    }
}

/// What no arithmetic of ours comes to, in Lua.
const GARBLED: [&str; 6] = ["0/0", "1/0", "-1/0", "1e300", "-1e300", "-5"];

impl World {
    /// Puts a garbled double in the place of one that is packed.
    async fn garble(&self, key: &str, field: Option<&str>, at: usize, garbled: &str) {
        let (get, set) = match field {
            Some(field) => {
                (format!("'HGET', KEYS[1], '{field}'"), format!("'HSET', KEYS[1], '{field}'"))
            }
            None => ("'GET', KEYS[1]".into(), "'SET', KEYS[1]".into()),
        };
        let script = format!(
            "local old = redis.call({get}) \
             redis.call({set}, old:sub(1, {at}) .. struct.pack('<d', {garbled}) .. old:sub({at} + 9))"
        );
        self.command(&["eval", &script, "1", key]).await;
    }
}

#[tokio::test]
async fn a_claim_with_garbled_times_is_taken_over() {
    for garbled in GARBLED {
        for at in [1, 9, 17] {
            let world = World::redis().await;
            let call = world.keyed("a", "x");
            world.granted(&call).await;
            world.garble(&world.key("record:record-of-a"), Some("times"), at, garbled).await;
            assert!(world.granted(&world.keyed("a", "x")).await.takeover, "{garbled} at {at}");
            assert_eq!(world.settle(&call, done("fenced off")).await, Settled::NotOurs);
        }
    }
}

#[tokio::test]
async fn a_claim_of_an_unknown_layout_is_waited_for_and_no_other_content_takes_it_over() {
    let world = World::redis().await;
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    let script = "local old = redis.call('HGET', KEYS[1], 'times') \
                  redis.call('HSET', KEYS[1], 'times', string.char(9) .. old:sub(2))";
    world.command(&["eval", script, "1", &world.key("record:record-of-a")]).await;
    let left = Decision::Busy { lease: Duration::from_secs(15) };
    assert_eq!(world.decide(&world.keyed("a", "x")).await, left);
    for seconds in [0.0, 15.0] {
        world.pass(seconds);
        let other = world.decide(&world.keyed("a", "y")).await;
        assert!(matches!(other, Decision::Mismatch { .. }), "{other:?}");
    }
    assert!(world.granted(&world.keyed("a", "x")).await.takeover);
    assert_eq!(world.settle(&call, done("fenced off")).await, Settled::NotOurs);
}

#[tokio::test]
async fn garbled_levels_neither_fail_nor_freeze() {
    let mut world = World::redis().await;
    (world.scope.limits.committed, world.scope.committed_burst) =
        (rate(1.0), share_burst(rate(1.0)));
    for (rest, figures) in [("upstream", 10), ("tenant:acme", 7)] {
        for at in (0..figures).map(|figure| 1 + 8 * figure) {
            for garbled in GARBLED {
                let call = world.call();
                world.granted(&call).await;
                world.garble(&world.key(rest), None, at, garbled).await;
                world.quota().await;
                world.settle(&call, refund()).await;
                world.pass(2.0);
                world.granted(&world.call()).await;
                assert!(world.quota().await.factor >= 1.0 / 16.0);
            }
        }
    }
}

#[tokio::test]
async fn a_result_whose_life_is_over_is_not_even_kept() {
    let world = World::redis().await;
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.settle(&call, done_until("sealed", 1)).await;
    let kept = world
        .command(&["hmget", &world.key("record:record-of-a"), "state", "body"])
        .await;
    assert_eq!(
        kept,
        redis::Value::Array(vec![
            redis::Value::BulkString(b"tombstone".to_vec()),
            redis::Value::Nil
        ])
    );
}

#[tokio::test]
async fn keys_of_another_type_count_as_lost() {
    let mut world = World::redis().await;
    world.scope.limits.max_in_flight = 1;
    for rest in ["upstream", "tenant:acme", "flights:acme", "queue", "drops", "starts"] {
        for other in
            [&["set", "KEY", "text"][..], &["sadd", "KEY", "member"], &["hset", "KEY", "m", "soon"]]
        {
            let key = world.key(rest);
            world.command(&["del", &key]).await;
            world
                .command(&[other[0], &key, other[2], other.get(3).unwrap_or(&"-")][..other.len()])
                .await;
            world.quota().await;
            let call = world.call();
            world.granted(&call).await;
            assert_eq!(world.refused(&world.call()).await.limit, Limit::TenantInFlight);
            assert_eq!(world.settle(&call, refund()).await, Settled::Closed, "{rest} {other:?}");
        }
    }
}

#[tokio::test]
async fn a_lost_upstream_loses_its_budget_and_no_lease() {
    let world = World::redis().await;
    world.granted(&world.keyed("a", "x")).await;
    world.pass(5.0);
    world.command(&["del", &world.key("upstream")]).await;
    let left = Decision::Busy { lease: Duration::from_secs(10) };
    assert_eq!(world.decide(&world.keyed("a", "x")).await, left);
    let quota = world.quota().await;
    assert_eq!((quota.in_flight, quota.remaining), (1, 100));
}

#[tokio::test]
async fn an_upstream_lost_after_its_clock_went_ahead_freezes_nothing() {
    let mut world = World::redis().await;
    world.tenant_limit(1.0, 3);
    (world.scope.limits.committed, world.scope.committed_burst) = (rate(1.0), 1);
    world.scope.limits.max_in_flight = 3;
    world.quota().await;
    // The clock was hours ahead, was put right, and then the hash was lost.
    world.clock.set(START + 5 * HOUR_US);
    for token in ["a", "b", "c"] {
        world.granted(&world.keyed(token, "x")).await;
    }
    world.clock.set(START);
    assert_eq!(world.quota().await.in_flight, 3);
    world.command(&["del", &world.key("upstream")]).await;
    assert_eq!(world.quota().await.in_flight, 0, "leases hours ahead are no leases");
    assert_eq!(world.refused(&world.keyed("a", "x")).await, refused_for(Limit::TenantRate, 1_000));
    world.pass(1.0);
    assert!(world.granted(&world.keyed("a", "x")).await.takeover);
}

#[tokio::test]
async fn a_flush_between_admit_and_settle_loses_the_claim_and_nothing_else() {
    let mut world = World::on(Arc::new(RedisServer::start().await));
    world.scope.limits.max_in_flight = 1;
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.command(&["flushall"]).await;
    assert_eq!(world.decide(&attempt(&call)).await, Decision::Lost);
    assert_eq!(world.settle(&call, done("sealed")).await, Settled::NotOurs);
    world.granted(&call).await;
    world.granted(&attempt(&call)).await;
    assert_eq!(world.settle(&call, done("sealed")).await, Settled::Closed);
}

#[tokio::test]
async fn forgotten_scripts_are_sent_again_unseen() {
    let world = World::on(Arc::new(RedisServer::start().await));
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.command(&["script", "flush"]).await;
    assert_eq!(world.settle(&call, done("sealed")).await, Settled::Closed);
    world.command(&["script", "flush"]).await;
    assert_eq!(world.decide(&call).await, replay("sealed"));
    world.command(&["script", "flush"]).await;
    world.quota().await;
    world.store.probe().await.unwrap();
}

#[tokio::test]
async fn a_full_redis_refuses_before_it_changes_anything() {
    let world = World::on(Arc::new(RedisServer::start().await));
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.pass(1.0);
    let state = async || {
        let mut state = Vec::new();
        for rest in
            ["upstream", "tenant:acme", "flights:acme", "record:record-of-a", "record:record-of-b"]
        {
            state.push(format!("{:?}", world.command(&["dump", &world.key(rest)]).await));
        }
        state
    };
    let before = state().await;
    world.command(&["config", "set", "maxmemory", "1"]).await;
    let settled = world.store.settle(&settlement(&call, release())).await;
    for error in [
        world.store.admit(&world.keyed("b", "x")).await.unwrap_err(),
        world
            .store
            .admit(&Ask { stage: Stage::Call, ..world.keyed("a", "x") })
            .await
            .unwrap_err(),
        settled.unwrap_err(),
        world.store.quota(&world.scope).await.unwrap_err(),
        world.store.probe().await.unwrap_err(),
    ] {
        assert_eq!(error.as_str(), "OOM");
    }
    assert_eq!(state().await, before);
    world.command(&["config", "set", "maxmemory", "0"]).await;
    world.store.probe().await.unwrap();
    assert_eq!(world.settle(&call, release()).await, Settled::Closed);
}

#[tokio::test]
async fn by_redis_own_time_leases_run_and_results_end() {
    let server = RedisServer::shared().await;
    let world = World::on(Arc::clone(&server));
    let mut settings = RedisSettings::standalone(server.url());
    settings.key_prefix.clone_from(&world.prefix);
    settings.timeout = Duration::from_secs(10);
    let store = RedisStore::new(settings).unwrap();
    let call = world.keyed("a", "x");
    assert!(matches!(store.admit(&call).await.unwrap().decision, Decision::Granted { .. }));
    let Decision::Busy { lease } = store.admit(&world.keyed("a", "x")).await.unwrap().decision
    else {
        panic!()
    };
    assert!(lease > Duration::from_secs(5) && lease < Duration::from_secs(15), "{lease:?}");
    let in_an_hour = SystemTime::now() + Duration::from_secs(3_600);
    let verdict = Verdict::Done { sealed: b"sealed".to_vec(), expires: Some(in_an_hour) };
    assert_eq!(store.settle(&settlement(&call, verdict)).await.unwrap(), Settled::Closed);
    assert_eq!(store.admit(&call).await.unwrap().decision, replay("sealed"));
    let call = world.keyed("b", "x");
    store.admit(&call).await.unwrap();
    let in_20_s = SystemTime::now() + Duration::from_secs(20);
    let verdict = Verdict::Done { sealed: b"sealed".to_vec(), expires: Some(in_20_s) };
    store.settle(&settlement(&call, verdict)).await.unwrap();
    assert_eq!(store.admit(&call).await.unwrap().decision, Decision::Tombstone);
    let quota = store.quota(&world.scope).await.unwrap();
    assert_eq!((quota.in_flight, world.scope.limits.rate), (0, Rate::new(100.0).unwrap()));
}
