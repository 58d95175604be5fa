use std::collections::BTreeMap;

use super::super::status::*;
use super::*;

fn quiet() -> Status {
    Status {
        version: "0.0.0",
        config_version: "abc".to_owned(),
        at: "2030-01-01T00:00:00Z".to_owned(),
        uptime_seconds: 60,
        ready: true,
        not_ready: None,
        troubles: Vec::new(),
        calls: CallsStatus::default(),
        upstreams: vec![UpstreamStatus {
            name: "main".to_owned(),
            region: "us-east-1".to_owned(),
            rate_per_second: 2.0,
            rate_in_use_per_second: Some(2.0),
            factor: Some(1.0),
            burst: 5,
            level: Some(5.0),
            queue: Some(0),
            circuit: CircuitState::Closed,
            attempts: AttemptCounts::default(),
        }],
        tenants: TenantsStatus { shown: vec![tenant("acme")], ..TenantsStatus::default() },
        store: StoreStatus { kind: "memory", ..StoreStatus::default() },
        credentials: Vec::new(),
        certificates: Vec::new(),
        failed_calls: Vec::new(),
    }
}

fn tenant(name: &str) -> TenantStatus {
    TenantStatus {
        tenant: name.to_owned(),
        upstream: "main".to_owned(),
        rate_per_second: 20.0,
        burst: 40,
        level: None,
        committed_per_second: 0.0,
        share: None,
        in_flight: None,
        max_in_flight: 64,
        shadow: false,
        decisions: DecisionCounts::default(),
    }
}

fn texts(status: &Status) -> Vec<String> {
    troubles(status, &status.tenants.shown)
        .into_iter()
        .map(|trouble| trouble.text)
        .collect()
}

#[test]
fn nothing_is_wrong_with_a_quiet_gateway() {
    assert_eq!(texts(&quiet()), Vec::<String>::new());
}

#[test]
fn what_fails_calls_stands_before_what_refuses_them() {
    let mut status = quiet();
    let decided = BTreeMap::from([("admitted", 7), ("tenant_rate", 12), ("budget", 1)]);
    status.tenants.shown[0].decisions.last_minute = decided;
    status.upstreams[0].factor = Some(0.5);
    status.upstreams[0].circuit = CircuitState::Open;
    status.not_ready = Some("draining".to_owned());
    assert_eq!(
        texts(&status),
        [
            "This process is not ready: draining.",
            "Upstream main: its circuit is open, since Amazon Connect has been failing. Calls are refused with CIRCUIT_OPEN.",
            "Upstream main: Amazon Connect throttles. The budget is slowed to 50 % of 2/s.",
            "Tenant acme on main: 12 calls were refused in the last minute by its rate of 20/s.",
            "Tenant acme on main: 1 call was refused in the last minute by the budget of upstream main.",
        ]
    );
}

#[test]
fn a_lost_store_says_what_the_loss_means() {
    let mut status = quiet();
    status.store = StoreStatus {
        kind: "redis",
        degraded_since: Some("2030-01-01T00:00:00Z".to_owned()),
        on_loss: Some("local"),
        replicas: Some(3),
        ..StoreStatus::default()
    };
    let [local] = &texts(&status)[..] else { panic!("{:?}", texts(&status)) };
    assert!(local.starts_with("Redis is lost since 2030-01-01T00:00:00Z."), "{local}");
    assert!(local.contains("1/3 of every limit"), "{local}");
    status.store.on_loss = Some("reject");
    status.store.replicas = None;
    assert!(texts(&status)[0].contains("STORE_UNAVAILABLE"), "{:?}", texts(&status));
}

#[test]
fn a_certificate_that_ends_within_two_weeks_is_a_warning_and_one_that_has_ended_is_worse() {
    let severity = |seconds_left| {
        let ends = "2030-01-01T00:00:00Z".to_owned();
        let path = "server.tls.cert_file";
        let certificates = vec![CertificateStatus { path, ends, seconds_left }];
        let found = troubles(&Status { certificates, ..quiet() }, &[]);
        found.first().map(|trouble| trouble.severity)
    };
    assert_eq!(severity(15 * 86_400), None);
    assert_eq!(severity(86_400), Some(Severity::Warning));
    assert_eq!(severity(-1), Some(Severity::Critical));
}

#[test]
fn credentials_that_cannot_be_loaded_are_named_with_their_upstream() {
    let severity = |state| {
        let credentials =
            vec![CredentialsStatus { upstream: "main".to_owned(), state, ends: None }];
        troubles(&Status { credentials, ..quiet() }, &[])
            .first()
            .map(|trouble| trouble.severity)
    };
    assert_eq!(severity(CredentialsWord::NotLoaded), None);
    assert_eq!(severity(CredentialsWord::Valid), None);
    assert_eq!(severity(CredentialsWord::Renewing), Some(Severity::Warning));
    assert_eq!(severity(CredentialsWord::Failing), Some(Severity::Critical));
}

#[test]
fn many_troubles_are_cut_off_and_the_worst_stay() {
    let mut status = quiet();
    status.tenants.shown = (0..100).map(|number| tenant(&format!("tenant-{number}"))).collect();
    for tenant in &mut status.tenants.shown {
        tenant.decisions.last_minute = BTreeMap::from([("tenant_rate", 1)]);
    }
    status.not_ready = Some("waiting for the store".to_owned());
    let texts = texts(&status);
    assert_eq!(texts.len(), MOST + 1);
    assert!(texts[0].contains("not ready"), "{texts:?}");
    assert_eq!(texts[MOST], "89 more troubles of this kind are not listed.");
}
