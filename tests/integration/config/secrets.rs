//! What a config holds that nobody may see.

use participant_gateway::config::Settings;
use serde_json::json;

use super::{good, parse, problems};
use crate::support::set;

#[test]
fn a_password_in_a_url_is_shown_nowhere() {
    let mut config = good();
    set(&mut config, "/store/redis/urls", json!(["redis://user:canary@127.0.0.1:6379"]));
    let shown = parse(&config, &[]).unwrap().redacted().to_string();
    assert!(!shown.contains("canary") && shown.contains("[redacted]@127.0.0.1"), "{shown}");
    set(&mut config, "/store/redis/urls", json!("redis://user:canary@127.0.0.1:6379"));
    let found = problems(&config, &[]);
    assert!(found.iter().all(|problem| !problem.to_string().contains("canary")), "{found:?}");
}

#[test]
fn a_secret_beside_a_mistake_in_the_text_is_not_shown() {
    let text = "store: { redis: { urls: ['redis://u:canary@h'] } }
server: [
";
    let found = Settings::parse(text, []).unwrap_err().to_string();
    assert!(!found.contains("canary") && found.contains("line"), "{found}");
}

#[test]
fn a_redis_url_that_cannot_be_dialled_is_named_and_its_password_is_not() {
    for url in [
        "redis://h:6379/abc",
        "redis://h:6379/?protocol=9",
        "rediss://h:6379/#insecure",
        "redis:/u:sekret@h",
    ] {
        let mut config = good();
        set(&mut config, "/store", json!({ "kind": "redis", "redis": { "urls": [url] } }));
        let problems = problems(&config, &[]);
        let named = problems.iter().find(|problem| problem.path == "store.redis.urls[0]");
        let named = named.unwrap_or_else(|| panic!("{url} was taken")).to_string();
        assert!(!named.contains("sekret"), "{named}");
    }
    let mut config = good();
    let redis = json!({ "topology": "sentinel", "sentinel_master": "" });
    set(&mut config, "/store", json!({ "kind": "redis", "redis": redis }));
    assert!(
        problems(&config, &[])
            .iter()
            .any(|problem| problem.path == "store.redis.sentinel_master")
    );
}

#[test]
fn a_secret_in_the_wrong_place_is_not_shown() {
    let mut config = good();
    for (key, value) in [("Password", json!("hunter2")), ("auth", json!({ "word": "hunter2" }))] {
        set(&mut config, "/store", json!({ "redis": { key: value } }));
        let named = problems(&config, &[]).remove(0).to_string();
        assert!(
            named.starts_with(&format!("store.redis.{key}:")) && !named.contains("hunter2"),
            "{named}"
        );
    }
}
