use std::time::Duration;

use tokio::time::advance;

use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn ended(reason: &'static str) -> Ended {
    Ended {
        code: "RESOURCE_EXHAUSTED",
        reason,
        is_fault: false,
        sentence: "Try again.",
        detail: String::new(),
    }
}

fn notes(request_id: &str) -> Notes {
    let value = request_id.parse().unwrap();
    Notes::new(&http::HeaderMap::from_iter([(
        http::HeaderName::from_static("x-request-id"),
        value,
    )]))
}

impl History {
    /// What it holds on the heap and by itself, with the tables' own room.
    fn bytes(&self) -> usize {
        let decided = lock(&self.decided);
        let attempts = lock(&self.attempts);
        let reasons = lock(&self.reasons);
        let rings = decided.values().chain(attempts.upstreams.values()).chain(reasons.values());
        let entry = size_of::<(Name, Name)>() + size_of::<Ring>() + 1;
        rings.map(Ring::bytes).sum::<usize>()
            + decided.capacity() * 8 / 7 * entry
            + lock(&self.recent).bytes()
            + size_of::<Self>()
    }
}

#[tokio::test(start_paused = true)]
async fn decisions_are_counted_by_kind_in_the_last_minute_and_over_fifteen() {
    let history = History::new();
    let (acme, main) = (name("acme"), name("main"));
    for _ in 0..3 {
        history.note_decision(&acme, &main, Disposition::Admitted);
    }
    history.note_decision(&acme, &main, Disposition::TenantRate);
    let of = |kind: Disposition| {
        let decisions = history.decisions(&acme, &main);
        decisions.into_iter().find(|counted| counted.kind == kind.as_str()).unwrap()
    };
    assert_eq!(of(Disposition::Admitted).last_minute, 3);
    assert_eq!(of(Disposition::TenantRate).last_minute, 1);
    assert_eq!(of(Disposition::Budget).last_minute, 0);
    assert_eq!(of(Disposition::Admitted).points.last(), Some(&3));

    advance(Duration::from_secs(61)).await;
    assert_eq!(of(Disposition::Admitted).last_minute, 0);
    assert_eq!(of(Disposition::Admitted).points[POINTS - 1 - 4], 3);
    assert_eq!(history.routes(), [((acme.clone(), main.clone()), 0)]);

    advance(Duration::from_secs(900)).await;
    assert!(of(Disposition::Admitted).points.iter().all(|count| *count == 0));
    assert_eq!(history.routes(), []);
    history.note_decision(&acme, &main, Disposition::Admitted);
    assert_eq!(of(Disposition::Admitted).points.iter().sum::<u32>(), 1);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_counted_by_their_outcomes() {
    let history = History::new();
    let main = name("main");
    history.start_upstream(&main, &["ok", "throttled", "internal"]);
    for outcome in ["ok", "ok", "throttled", "not-a-known-one"] {
        history.note_attempt(&main, outcome);
    }
    history.note_attempt(&name("other"), "ok");
    let counts: Vec<_> =
        history.outcomes(&main).iter().map(|of| (of.kind, of.last_minute)).collect();
    assert_eq!(counts, [("ok", 2), ("throttled", 1)]);
    assert_eq!(history.outcomes(&name("other")), []);
}

#[tokio::test(start_paused = true)]
async fn the_last_fifty_calls_that_failed_are_kept_the_latest_first() {
    let history = History::new();
    for number in 0..60 {
        history.note_failed(&notes(&format!("call-{number}")), &ended("TENANT_RATE_LIMITED"));
    }
    history.note_failed(&notes("last"), &ended("OVERLOADED"));
    let calls = history.failed_calls();
    assert_eq!(calls.len(), 50);
    let ids: Vec<_> = calls.iter().map(|call| call.request_id.as_str()).collect();
    assert_eq!((ids[0], ids[1], ids[49]), ("last", "call-59", "call-11"));
    assert_eq!((calls[0].reason, calls[0].sentence), ("OVERLOADED", "Try again."));
    assert_eq!(history.reasons(), [("TENANT_RATE_LIMITED", 60), ("OVERLOADED", 1)]);
}

#[tokio::test(start_paused = true)]
async fn the_round_trip_is_the_median_of_the_latest() {
    let history = History::new();
    assert_eq!(history.round_trip(), None);
    (1..=3).for_each(|millis| history.note_round_trip(Duration::from_millis(millis)));
    assert_eq!(history.round_trip(), Some(Duration::from_millis(2)));
    (0..ROUND_TRIPS).for_each(|_| history.note_round_trip(Duration::from_millis(9)));
    assert_eq!(history.round_trip(), Some(Duration::from_millis(9)));
}

/// docs/design/contract.md, "The console": 2 MiB, whatever the number of tenants.
#[tokio::test(start_paused = true)]
async fn ten_thousand_tenants_take_no_more_than_two_mebibytes() {
    let history = History::new();
    let outcomes: Vec<&'static str> =
        vec!["ok", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];
    for number in 0..1_000 {
        history.start_upstream(&name(&format!("upstream-{number}")), &outcomes);
    }
    for round in 0..3 {
        for number in 0..10_000 {
            let tenant = name(&format!("tenant-{number}-{}", "x".repeat(40)));
            for disposition in Disposition::ALL {
                history.note_decision(&tenant, &name("upstream-0"), disposition);
            }
            let notes = notes(&"x".repeat(128));
            notes.note_tenant(&tenant);
            history.note_failed(&notes, &ended(outcomes[number % 17]));
        }
        advance(Duration::from_secs(60 * (round + 1))).await;
    }
    assert_eq!(lock(&history.decided).len(), MOST_ROUTES);
    let bytes = history.bytes();
    assert!(bytes < 2 * 1024 * 1024, "{bytes} bytes");
    assert!(bytes > 1024 * 1024, "{bytes} bytes: is everything counted?");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_calls_often_is_counted_however_many_others_call_rarely() {
    let history = History::new();
    let (main, greedy) = (name("main"), name("greedy"));
    for number in 0..20_000 {
        let tenant = name(&format!("tenant-{}", number % 10_000));
        history.note_decision(&tenant, &main, Disposition::Admitted);
        if number > 5_000 {
            history.note_decision(&greedy, &main, Disposition::Admitted);
        }
    }
    let (first, count) = history.routes().into_iter().next().unwrap();
    assert_eq!(first, (greedy, main));
    assert!(count > 10_000, "{count}");
}
