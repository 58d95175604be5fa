//! The rules that no key can keep alone.

use participant_gateway::domain::InstanceId;
use serde_json::{Value, json};

use super::{good, parse, problems};
use crate::support::set;

#[test]
fn a_mode_names_what_it_lacks_and_no_subject_is_two_tenants() {
    let paths = |config: &Value| {
        problems(config, &[])
            .into_iter()
            .map(|problem| problem.path)
            .collect::<Vec<_>>()
    };
    let mut config = good();
    set(&mut config, "/identity/mode", json!("jwt"));
    assert_eq!(paths(&config), ["identity.jwt", "tenants.acme.subjects"]);
    set(&mut config, "/identity/jwt", json!({ "algorithms": ["HS256"] }));
    assert_eq!(
        paths(&config),
        [
            "identity.jwt.algorithms[0]",
            "identity.jwt.audience",
            "identity.jwt.issuer",
            "tenants.acme.subjects",
        ]
    );
    set(&mut config, "/identity", json!({ "mode": "mtls" }));
    set(&mut config, "/tenants/acme/subjects", json!(["spiffe://a"]));
    let other = json!({ "instances": ["i-1"], "rate": "1/s", "burst": 1, "subjects": ["dns.b", "spiffe://a"] });
    set(&mut config, "/tenants/other", other);
    assert_eq!(paths(&config), ["server.tls.client_ca_file", "tenants.other.subjects[1]"]);
}

#[test]
fn an_instance_or_the_star_belongs_to_one_upstream_only() {
    let mut config = good();
    set(&mut config, "/upstreams/other", json!({ "region": "eu-west-1", "instances": ["i-1"] }));
    assert_eq!(problems(&config, &[])[0].path, "upstreams.other.instances");
    set(&mut config, "/upstreams/main/instances", json!(["*"]));
    set(&mut config, "/upstreams/other/instances", json!(["*"]));
    assert_eq!(problems(&config, &[])[0].path, "upstreams.other.instances");
}

#[test]
fn an_instance_goes_to_the_upstream_that_lists_it_and_else_to_the_one_that_takes_any() {
    let mut config = good();
    set(&mut config, "/upstreams/rest", json!({ "region": "eu-west-1", "instances": ["*"] }));
    let settings = parse(&config, &[]).unwrap();
    let upstream =
        |id: &str| settings.upstream_of(&InstanceId::new(id).unwrap()).unwrap().name.to_string();
    assert_eq!(upstream("i-1"), "main");
    assert_eq!(upstream("i-2"), "rest");
}

#[test]
fn committed_shares_count_where_their_instances_go() {
    let mut config = good();
    set(&mut config, "/tenants/acme/committed", json!("2/s"));
    set(
        &mut config,
        "/upstreams/any",
        json!({ "region": "eu-west-1", "instances": ["*"], "rate": "1/s" }),
    );
    parse(&config, &[]).expect("a share was counted on an upstream that it never goes to");
}

#[test]
fn shares_that_the_burst_cannot_hold_are_warned_of() {
    let mut config = good();
    set(&mut config, "/upstreams/main/rate", json!("20/s"));
    set(&mut config, "/upstreams/main/burst", json!(20));
    set(&mut config, "/tenants/acme/committed", json!("5/s"));
    let warnings = |config: &Value| {
        let settings = parse(config, &[]).unwrap();
        settings.warnings.iter().map(|warning| warning.path.clone()).collect::<Vec<_>>()
    };
    assert!(!warnings(&config).contains(&"upstreams.main.burst".to_owned()));
    set(&mut config, "/upstreams/main/burst", json!(6));
    assert!(
        warnings(&config).contains(&"upstreams.main.burst".to_owned()),
        "queueing loses throughput"
    );
    set(&mut config, "/upstreams/main/burst", json!(2));
    set(&mut config, "/upstreams/main/max_wait", json!("100ms"));
    assert!(
        warnings(&config).contains(&"upstreams.main.burst".to_owned()),
        "committed calls may be refused"
    );
    assert!(
        warnings(&good()).contains(&"idempotency.root_key_file".to_owned()),
        "tokens are predictable"
    );
}
