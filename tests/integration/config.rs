//! The config: defaults, overrides, and every bad value with its path and what was expected.

mod across_keys;
mod identity;
mod secrets;

use participant_gateway::config::{Problem, Settings, json_schema};
use serde_json::{Value, json};

use crate::support::set;

fn good() -> Value {
    json!({
        "identity": { "mode": "header" },
        "tenants": { "acme": { "instances": ["i-1"], "rate": "20/s", "burst": 40 } },
        "upstreams": { "main": { "region": "us-east-1", "instances": ["i-1"] } },
    })
}

fn parse(config: &Value, environment: &[(&str, &str)]) -> Result<Settings, Vec<Problem>> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::parse(&config.to_string(), environment)
        .map_err(participant_gateway::config::Problems::sorted)
}

fn problems(config: &Value, environment: &[(&str, &str)]) -> Vec<Problem> {
    parse(config, environment).expect_err("the config was taken")
}

#[test]
fn what_is_not_set_has_the_documented_default() {
    let shown = parse(&good(), &[]).unwrap().redacted();
    for (pointer, expected) in [
        ("/server/listen", json!("[::]:50051")),
        ("/server/default_timeout", json!("10s")),
        ("/server/max_timeout", json!("30s")),
        ("/server/max_request_bytes", json!(65536)),
        ("/server/max_header_bytes", json!(16384)),
        ("/server/max_in_flight", json!(1024)),
        ("/server/max_concurrent_streams", json!(256)),
        ("/server/max_connection_age", json!("30m")),
        ("/server/drain_timeout", json!("25s")),
        ("/server/reflection", json!(true)),
        ("/admin/listen", json!("[::]:9090")),
        ("/identity/header/name", json!("x-tenant-id")),
        ("/identity/header/format", json!("plain")),
        ("/tenants/acme/roles", json!(["CUSTOM_BOT", "CUSTOMER"])),
        ("/tenants/acme/committed", json!("0/s")),
        ("/tenants/acme/max_in_flight", json!(64)),
        ("/tenants/acme/enforcement", json!("enforce")),
        ("/upstreams/main/rate", json!("2/s")),
        ("/upstreams/main/burst", json!(5)),
        ("/upstreams/main/max_wait", json!("500ms")),
        ("/upstreams/main/connect_timeout", json!("1s")),
        ("/upstreams/main/attempt_timeout", json!("3s")),
        ("/upstreams/main/max_attempts", json!(3)),
        ("/store/kind", json!("memory")),
        ("/store/on_loss", json!("local")),
        ("/store/replicas", json!(1)),
        ("/store/redis/topology", json!("standalone")),
        ("/store/redis/urls", json!(["redis://127.0.0.1:6379"])),
        ("/store/redis/key_prefix", json!("pg")),
        ("/store/redis/timeout", json!("250ms")),
        ("/idempotency/retention", json!("1day")),
        ("/telemetry/log/format", json!("json")),
        ("/telemetry/log/level", json!("info")),
    ] {
        assert_eq!(shown.pointer(pointer), Some(&expected), "{pointer}");
    }
}

#[test]
fn the_environment_overrides_any_key() {
    let settings = parse(
        &good(),
        &[
            ("PARTICIPANT_GATEWAY__SERVER__LISTEN", "127.0.0.1:1"),
            ("PARTICIPANT_GATEWAY__SERVER__MAX_IN_FLIGHT", "7"),
            ("PARTICIPANT_GATEWAY__SERVER__REFLECTION", "false"),
            ("PARTICIPANT_GATEWAY__TENANTS__ACME__INSTANCES", "[i-1, '123']"),
            ("PARTICIPANT_GATEWAY__UPSTREAMS__MAIN__EXTERNAL_ID", "0123"),
            (
                "PARTICIPANT_GATEWAY__UPSTREAMS__MAIN__ROLE_ARN",
                "arn:aws:iam::123456789012:role/caller",
            ),
            ("ANOTHER__SERVER__LISTEN", "nonsense"),
        ],
    )
    .unwrap();
    let shown = settings.redacted();
    assert_eq!(shown["server"]["listen"], "127.0.0.1:1");
    assert_eq!(shown["server"]["max_in_flight"], 7);
    assert_eq!(shown["server"]["reflection"], false);
    assert_eq!(shown["tenants"]["acme"]["instances"], json!(["i-1", "123"]));
    assert_eq!(shown["upstreams"]["main"]["external_id"], "0123", "a text of digits stays a text");
}

#[test]
fn a_bad_override_is_named_like_a_bad_key() {
    let found = problems(
        &good(),
        &[
            ("PARTICIPANT_GATEWAY__SERVER__MAX_IN_FLIGHT", "many"),
            ("PARTICIPANT_GATEWAY__SERVER__COLOUR", "red"),
        ],
    );
    let paths: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["server.colour", "server.max_in_flight"]);
}

#[test]
fn each_bad_value_is_named_with_its_path_and_what_was_expected() {
    for (pointer, value, path, expected) in [
        ("/server/listen", json!("localhost"), "server.listen", "an IP address and a port"),
        ("/server/default_timeout", json!("0s"), "server.default_timeout", "a duration above zero"),
        ("/server/default_timeout", json!(10), "server.default_timeout", "a duration above zero"),
        (
            "/server/default_timeout",
            json!("1h"),
            "server.default_timeout",
            "at most server.max_timeout",
        ),
        (
            "/server/max_request_bytes",
            json!(-1),
            "server.max_request_bytes",
            "a whole number from 1",
        ),
        ("/server/max_in_flight", json!(0), "server.max_in_flight", "a whole number from 1"),
        ("/server/max_in_flight", json!(1.5), "server.max_in_flight", "a whole number from 1"),
        ("/server/reflection", json!("maybe"), "server.reflection", "a boolean"),
        ("/server/tls", json!({ "cert_file": "c" }), "server.tls.key_file", "required"),
        ("/server", json!("fast"), "server", "a mapping"),
        ("/servr", json!({}), "servr", "a known key"),
        ("/admin/listen", json!("0.0.0.0:50051"), "admin.listen", "another address"),
        ("/identity/mode", json!("none"), "identity.mode", "header"),
        ("/identity/header/name", json!("x tenant"), "identity.header.name", "a header name"),
        ("/identity/header/name", json!("x-tenant-bin"), "identity.header.name", "a header name"),
        ("/tenants", json!({}), "tenants", "at least one tenant"),
        ("/tenants/Acme", good()["tenants"]["acme"].clone(), "tenants.Acme", "a name of the form"),
        ("/tenants/acme/rate", json!("20"), "tenants.acme.rate", "a rate"),
        ("/tenants/acme/rate", json!("0/s"), "tenants.acme.rate", "a rate above zero"),
        ("/tenants/acme/burst", json!(0), "tenants.acme.burst", "a whole number from 1"),
        ("/tenants/acme/committed", json!("-1/s"), "tenants.acme.committed", "a rate"),
        (
            "/tenants/acme/committed",
            json!("3/s"),
            "upstreams.main.rate",
            "the sum of its tenants' committed rates",
        ),
        ("/tenants/acme/instances", json!([]), "tenants.acme.instances", "required"),
        ("/tenants/acme/instances", json!(["*", "i-1"]), "tenants.acme.instances", "not both"),
        (
            "/tenants/acme/instances",
            json!([""]),
            "tenants.acme.instances[0]",
            "1 to 100 characters",
        ),
        ("/tenants/acme/instances", json!([7]), "tenants.acme.instances[0]", "a string"),
        ("/tenants/acme/roles", json!(["AGENT"]), "tenants.acme.roles[0]", "CUSTOM_BOT"),
        ("/tenants/acme/roles", json!([]), "tenants.acme.roles", "at least one"),
        ("/tenants/acme/enforcement", json!("off"), "tenants.acme.enforcement", "enforce"),
        ("/upstreams", json!({}), "upstreams", "at least one upstream"),
        ("/upstreams/main/region", json!("us east"), "upstreams.main.region", "an AWS region"),
        (
            "/upstreams/main/endpoint_url",
            json!("localhost:1"),
            "upstreams.main.endpoint_url",
            "http://",
        ),
        (
            "/upstreams/main/endpoint_url",
            json!("http://x:99999"),
            "upstreams.main.endpoint_url",
            "http://",
        ),
        (
            "/upstreams/main/endpoint_url",
            json!("http://u:p@x"),
            "upstreams.main.endpoint_url",
            "without user",
        ),
        ("/upstreams/main/region", json!("-"), "upstreams.main.region", "an AWS region"),
        ("/upstreams/main/role_arn", json!("arn::role/"), "upstreams.main.role_arn", "an ARN"),
        ("/identity/header/name", json!("host"), "identity.header.name", "a header name"),
        (
            "/upstreams/main/endpoint_url",
            json!("ftp://x"),
            "upstreams.main.endpoint_url",
            "http://",
        ),
        ("/upstreams/main/role_arn", json!("caller"), "upstreams.main.role_arn", "an ARN"),
        ("/upstreams/main/external_id", json!("x"), "upstreams.main.external_id", "role_arn"),
        ("/upstreams/main/max_wait", json!("soon"), "upstreams.main.max_wait", "a duration"),
        ("/upstreams/main/burst", json!("5"), "upstreams.main.burst", "a whole number"),
        (
            "/store/kind",
            json!("redis"),
            "idempotency.root_key_file",
            "it is required with store.kind redis",
        ),
        (
            "/idempotency/root_key_file",
            json!("/nowhere"),
            "idempotency.root_key_file",
            "cannot be read",
        ),
        (
            "/idempotency/sealing_keys_file",
            json!("/dev/null"),
            "idempotency.sealing_keys_file",
            "holds no key",
        ),
        ("/store/kind", json!("disk"), "store.kind", "memory"),
        ("/store/kind", json!(5), "store.kind", "memory"),
        ("/telemetry/log/format", json!(true), "telemetry.log.format", "text"),
        ("/tenants/acme/roles", json!([5]), "tenants.acme.roles[0]", "CUSTOM_BOT"),
        ("/server/max_timeout", json!("2h"), "server.max_timeout", "an hour at most"),
        ("/upstreams/main/max_wait", json!("2h"), "upstreams.main.max_wait", "an hour"),
        (
            "/upstreams/main/attempt_timeout",
            json!("2h"),
            "upstreams.main.attempt_timeout",
            "an hour",
        ),
        ("/store/replicas", json!(3), "store.replicas", "1"),
        ("/idempotency/retention", json!("30s"), "idempotency.retention", "longest lease"),
        ("/telemetry/log/level", json!("loud"), "telemetry.log.level", "info"),
        (
            "/telemetry/otlp/endpoint",
            json!("localhost:4317"),
            "telemetry.otlp.endpoint",
            "http://host:port",
        ),
        (
            "/telemetry/otlp/endpoint",
            json!("http://localhost"),
            "telemetry.otlp.endpoint",
            "http://host:port",
        ),
        (
            "/telemetry/otlp/endpoint",
            json!("http://localhost:4317/v1"),
            "telemetry.otlp.endpoint",
            "http://host:port",
        ),
        ("/telemetry/otlp/sample_ratio", json!(1.5), "telemetry.otlp.sample_ratio", "0 to 1"),
    ] {
        let mut config = good();
        set(&mut config, pointer, value.clone());
        let found = problems(&config, &[]);
        let named = found.iter().find(|problem| problem.path == path);
        let named = named
            .unwrap_or_else(|| panic!("{pointer} = {value}: {path} is not named in {found:?}"));
        assert!(named.expected.contains(expected), "{pointer} = {value}: {named}");
        assert_eq!(found.len(), 1, "{pointer} = {value}: {found:?}");
    }
}

#[test]
fn each_missing_key_is_named_at_once() {
    let config = json!({ "tenants": { "acme": {} }, "upstreams": { "main": {} } });
    let paths: Vec<_> = problems(&config, &[]).into_iter().map(|problem| problem.path).collect();
    assert_eq!(
        paths,
        [
            "identity.mode",
            "tenants.acme.burst",
            "tenants.acme.instances",
            "tenants.acme.rate",
            "upstreams.main.instances",
            "upstreams.main.region",
        ]
    );
}

#[test]
fn bad_elements_of_a_list_keep_their_places() {
    let mut config = good();
    set(
        &mut config,
        "/tenants/acme/roles",
        json!(["AGENT", "CUSTOMER", "SYSTEM", "CUSTOM_BOT", "NOBODY"]),
    );
    let paths: Vec<_> = problems(&config, &[]).into_iter().map(|problem| problem.path).collect();
    assert_eq!(paths, ["tenants.acme.roles[0]", "tenants.acme.roles[2]", "tenants.acme.roles[4]"]);
}

#[test]
fn text_that_is_no_yaml_is_one_problem_with_its_place() {
    for text in
        ["a: [", "- a list", "{a: 1}\n{b: 2}", "identity: {mode: header}\nidentity: {mode: jwt}"]
    {
        let found = Settings::parse(text, []).unwrap_err().sorted();
        assert!(!found.is_empty(), "{text}");
    }
}

#[test]
fn an_empty_key_means_its_default() {
    let text = format!(
        "{}\n",
        "server:\nstore:\nidentity: {mode: header}\ntenants: {acme: {instances: [i-1], rate: 1/s, burst: 1}}\nupstreams: {main: {region: us-east-1, instances: [i-1], endpoint_url: }}"
    );
    Settings::parse(&text, []).unwrap_or_else(|problems| panic!("{problems}"));
}

#[test]
fn an_empty_key_that_is_unknown_is_named_and_an_empty_tenant_lacks_what_it_lacks() {
    let mut config = good();
    set(&mut config, "/server", json!({ "lisen": null }));
    set(&mut config, "/tenants/beta", Value::Null);
    let paths: Vec<_> = problems(&config, &[]).into_iter().map(|problem| problem.path).collect();
    let beta = ["tenants.beta.burst", "tenants.beta.instances", "tenants.beta.rate"];
    assert_eq!(paths, [["server.lisen"].as_slice(), &beta].concat());
}

#[test]
fn overrides_apply_from_the_outside_in_whatever_their_order() {
    let whole = ("PARTICIPANT_GATEWAY__TENANTS__ACME", "{instances: [i-1], rate: 1/s, burst: 1}");
    let inner = ("PARTICIPANT_GATEWAY__TENANTS__ACME__BURST", "7");
    for environment in [[whole, inner], [inner, whole]] {
        let shown = parse(&good(), &environment).unwrap().redacted();
        assert_eq!(
            (&shown["tenants"]["acme"]["burst"], &shown["tenants"]["acme"]["rate"]),
            (&json!(7), &json!("1/s"))
        );
    }
    let found = problems(
        &good(),
        &[
            ("PARTICIPANT_GATEWAY__SERVER__LISTEN__X", "1"),
            ("PARTICIPANT_GATEWAY__TENANTS__ACME__RATE", "q"),
        ],
    );
    assert!(found.iter().any(|problem| problem.path == "tenants.acme.rate"), "{found:?}");
    assert!(found.iter().any(|problem| problem.path.starts_with("server.listen")), "{found:?}");
}

#[test]
fn equal_configs_have_equal_versions_and_others_do_not() {
    let version = |config: &Value| parse(config, &[]).unwrap().version;
    let mut other = good();
    set(&mut other, "/tenants/acme/burst", json!(41));
    assert_eq!(version(&good()), version(&good()));
    assert_ne!(version(&good()), version(&other));
}

#[test]
fn the_schema_names_the_same_required_keys_as_the_check() {
    let schema = json_schema();
    let required =
        |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}")).clone();
    assert_eq!(required("/required"), json!(["identity", "tenants", "upstreams"]));
    assert_eq!(required("/$defs/Tenant/required"), json!(["instances", "rate", "burst"]));
    assert_eq!(required("/$defs/Upstream/required"), json!(["region", "instances"]));
    assert_eq!(required("/$defs/Identity/required"), json!(["mode"]));
}

#[test]
fn an_override_that_is_not_utf8_is_named() {
    let problems =
        problems(&good(), &[("PARTICIPANT_GATEWAY__STORE__REDIS__KEY_PREFIX", "a\u{fffd}")]);
    assert_eq!(problems[0].to_string(), "store.redis.key_prefix: expected a value in UTF-8");
}
