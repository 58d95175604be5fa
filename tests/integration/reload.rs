//! A changed file is in use without a restart; one that does not validate changes nothing.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::serve;
use crate::support::status::reason;
use crate::support::{Plan, gateway, http_get, request, request_with_token, set, until};

/// A config that is told apart by its burst.
fn config(burst: u32) -> Plan {
    gateway().with("/tenants/demo/burst", burst)
}

async fn burst(admin: SocketAddr) -> Value {
    let config: Value = serde_json::from_str(&http_get(admin, "/config").await.1).unwrap();
    config["tenants"]["demo"]["burst"].clone()
}

#[tokio::test]
async fn a_changed_file_is_in_use_and_a_broken_one_is_not() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    config(1).write(&file);
    let mut gateway = serve(&file, &[]).await;
    assert_eq!(burst(gateway.admin).await, 1);

    config(2).write(&file);
    gateway.running.next_with("config reloaded").await;
    assert_eq!(burst(gateway.admin).await, 2);

    config(0).write(&file);
    let line = gateway.running.next_with("config not reloaded").await;
    assert!(line.contains("tenants.demo.burst"), "{line}");
    assert_eq!(burst(gateway.admin).await, 2);

    config(3).with("/store/on_loss", "reject").write(&file);
    gateway.running.next_with("config reloaded").await;
    let line = gateway.running.next_with("needs a restart").await;
    assert!(line.contains("\"store\""), "{line}");
    assert_eq!(burst(gateway.admin).await, 3);
    let shown: Value = serde_json::from_str(&http_get(gateway.admin, "/config").await.1).unwrap();
    assert_eq!(shown["store"]["on_loss"], "local", "what needs a restart was shown as in use");
    let (_, metrics) = http_get(gateway.admin, "/metrics").await;
    for (result, count) in [("success", 2), ("failure", 1)] {
        let line =
            format!("participant_gateway_config_reloads_total{{result=\"{result}\"}} {count}");
        assert!(metrics.contains(&line), "{line} is not in:\n{metrics}");
    }
}

#[tokio::test]
async fn the_swap_of_a_config_maps_link_is_noticed() {
    let folder = TempDir::new().unwrap();
    let version = |name: &str, burst| {
        fs::create_dir(folder.path().join(name)).unwrap();
        config(burst).write(&folder.path().join(name).join("config.yaml"));
    };
    version("..v1", 1);
    version("..v2", 2);
    symlink("..v1", folder.path().join("..data")).unwrap();
    symlink("..data/config.yaml", folder.path().join("config.yaml")).unwrap();
    let mut gateway = serve(&folder.path().join("config.yaml"), &[]).await;

    symlink("..v2", folder.path().join("..data_tmp")).unwrap();
    fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    gateway.running.next_with("config reloaded").await;
    assert_eq!(burst(gateway.admin).await, 2);
}

#[tokio::test]
async fn sighup_reloads_at_once() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    config(1).write(&file);
    let mut gateway = serve(&file, &[]).await;
    gateway.running.signal("HUP");
    gateway.running.next_with("config reloaded").await;
}

#[tokio::test]
async fn the_log_level_changes_while_running() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    config(1).write(&file);
    let gateway = serve(&file, &[]).await;
    config(2).with("/telemetry/log/level", "error").write(&file);
    // At this level even the word of the reload is left out, so the end is quiet, too.
    until("the level is in use", async || burst(gateway.admin).await == 2).await;
    gateway.running.signal("TERM");
    let (code, lines) = gateway.running.end().await;
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("draining")), "{lines:#?}");
}

#[tokio::test]
async fn tenants_that_do_not_fit_the_identity_in_use_change_nothing() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    let keys = "http://127.0.0.1:9/keys";
    let jwt = json!({ "mode": "jwt", "jwt": { "issuer": "i", "audience": "a", "jwks_url": keys } });
    let config = |burst| config(burst).with("/tenants/demo/subjects", json!(["s"]));
    config(1).with("/identity", jwt).write(&file);
    let mut gateway = serve(&file, &[]).await;

    self::config(2).write(&file);
    let line = gateway.running.next_with("config not reloaded").await;
    assert!(line.contains("tenants.demo.subjects"), "{line}");
    let line = gateway.running.next_with("needs a restart").await;
    assert!(line.contains("\"identity\""), "{line}");
    assert_eq!(burst(gateway.admin).await, 1);
}

#[tokio::test]
async fn a_tenant_is_not_sent_to_another_account_than_the_file_says() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    let config =
        |burst, instances: &[&str]| config(burst).with("/tenants/demo/instances", json!(instances));
    config(1, &["i-1"]).write(&file);
    let mut gateway = serve(&file, &[]).await;

    let new = json!({ "region": "eu-west-1", "instances": ["i-2"] });
    config(2, &["i-1", "i-2"]).with("/upstreams/new", new.clone()).write(&file);
    let line = gateway.running.next_with("config not reloaded").await;
    assert!(line.contains("tenants.demo.instances") && line.contains("i-2"), "{line}");
    let line = gateway.running.next_with("needs a restart").await;
    assert!(line.contains("upstreams.new"), "{line}");
    assert_eq!(burst(gateway.admin).await, 1);

    // A tenant that needs nothing of the new upstream is changed all the same.
    config(3, &["i-1"]).with("/upstreams/new", new).write(&file);
    gateway.running.next_with("config reloaded").await;
    assert_eq!(burst(gateway.admin).await, 3);
}

#[tokio::test]
async fn shares_are_summed_up_over_the_upstreams_in_use() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    let config = |share: u32, upstreams: Value| {
        let tenant = json!({
            "instances": ["i-1"], "rate": "50/s", "burst": 1, "committed": format!("{share}/s"),
        });
        let tenants = json!({ "demo": tenant, "second": tenant });
        gateway().with("/tenants", tenants).with("/upstreams", upstreams)
    };
    let upstream = |instance: &str, rate: &str| json!({ "region": "us-east-1", "instances": [instance], "rate": rate });
    config(1, json!({ "main": upstream("i-1", "3/s") })).write(&file);
    let mut gateway = serve(&file, &[]).await;

    let two = json!({ "main": upstream("i-2", "3/s"), "two": upstream("i-1", "9/s") });
    config(2, two).write(&file);
    let line = gateway.running.next_with("config not reloaded").await;
    assert!(line.contains("upstreams.main.rate"), "{line}");
}

#[tokio::test]
async fn a_raised_rate_serves_at_once_the_calls_that_the_old_one_refused() {
    let plan = config(1).with("/tenants/demo/rate", "1/h");
    let mut gateway = plan.serve().await;
    let refused = async |call| {
        gateway.call(call).await.is_err_and(|status| {
            assert_eq!(reason(&status), "TENANT_RATE_LIMITED");
            true
        })
    };
    let calls = || [request("contact-1"), request_with_token("contact-1", "token-1")];
    gateway.call(request("contact-1")).await.unwrap();
    for call in calls().into_iter().chain(calls()) {
        assert!(refused(call).await);
    }

    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(gateway.config()).unwrap()).unwrap();
    set(&mut config, "/tenants/demo/rate", "1000/s".into());
    fs::write(gateway.config(), config.to_string()).unwrap();
    gateway.running.next_with("config reloaded").await;
    for call in calls() {
        gateway.call(call).await.unwrap();
    }
}

#[tokio::test]
async fn sealing_keys_may_move_to_another_file() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    let sealing = |name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, participant_gateway::admission::keygen().unwrap().as_bytes()).unwrap();
        config(1)
            .with("/idempotency/sealing_keys_file", path.display().to_string())
            .write(&file);
    };
    sealing("one");
    let mut gateway = serve(&file, &[]).await;
    sealing("two");
    gateway.running.next_with("config reloaded").await;
    let shown: Value = serde_json::from_str(&http_get(gateway.admin, "/config").await.1).unwrap();
    assert!(shown["idempotency"]["sealing_keys_file"].as_str().unwrap().ends_with("two"));
    gateway.running.signal("HUP");
    gateway.running.next_with("config reloaded").await;
    assert!(
        !gateway.running.seen().iter().any(|line| line.contains("needs a restart")),
        "a new file is no reason for a restart"
    );
}

#[tokio::test]
async fn a_config_whose_files_come_after_it_is_used_once_they_are_there() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    let keys = folder.path().join("keys");
    config(1).write(&file);
    let mut gateway = serve(&file, &[]).await;
    config(2)
        .with("/idempotency/sealing_keys_file", keys.display().to_string())
        .write(&file);
    gateway.running.next_with("config not reloaded").await;
    assert_eq!(burst(gateway.admin).await, 1);
    fs::write(&keys, participant_gateway::admission::keygen().unwrap().as_bytes()).unwrap();
    gateway.running.next_with("config reloaded").await;
    assert_eq!(burst(gateway.admin).await, 2);
}
