//! A changed file is in use without a restart; one that does not validate changes nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::http_get;
use crate::support::process::{Running, program};

fn config(burst: u32) -> String {
    format!(
        "server: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:0'}}\nidentity: {{mode: header}}\n\
         tenants: {{demo: {{instances: ['*'], rate: 50/s, burst: {burst}}}}}\n\
         upstreams: {{main: {{region: us-east-1, instances: ['*']}}}}\n"
    )
}

fn serve(file: &Path) -> (Running, std::net::SocketAddr) {
    let mut serve = program();
    serve.args(["serve", "--config"]).arg(file);
    let mut gateway = Running::start(serve);
    let line: Value = serde_json::from_str(&gateway.line_with("\"ready\"")).unwrap();
    let admin = line["admin_address"].as_str().unwrap().parse().unwrap();
    (gateway, admin)
}

async fn burst(admin: std::net::SocketAddr) -> Value {
    let config: Value = serde_json::from_str(&http_get(admin, "/config").await.1).unwrap();
    config["tenants"]["demo"]["burst"].clone()
}

#[tokio::test]
async fn a_changed_file_is_in_use_and_a_broken_one_is_not() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    fs::write(&file, config(1)).unwrap();
    let (mut gateway, admin) = serve(&file);
    assert_eq!(burst(admin).await, 1);

    fs::write(&file, config(2)).unwrap();
    gateway.next_with("config reloaded");
    assert_eq!(burst(admin).await, 2);

    fs::write(&file, config(0)).unwrap();
    let line = gateway.next_with("config not reloaded");
    assert!(line.contains("tenants.demo.burst"), "{line}");
    assert_eq!(burst(admin).await, 2);

    fs::write(&file, format!("{}store: {{on_loss: reject}}\n", config(3))).unwrap();
    gateway.next_with("config reloaded");
    let line = gateway.next_with("needs a restart");
    assert!(line.contains("\"store\""), "{line}");
    assert_eq!(burst(admin).await, 3);
    let shown: Value = serde_json::from_str(&http_get(admin, "/config").await.1).unwrap();
    assert_eq!(shown["store"]["on_loss"], "local", "what needs a restart was shown as in use");
    let (_, metrics) = http_get(admin, "/metrics").await;
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
        fs::write(folder.path().join(name).join("config.yaml"), config(burst)).unwrap();
    };
    version("..v1", 1);
    version("..v2", 2);
    symlink("..v1", folder.path().join("..data")).unwrap();
    symlink("..data/config.yaml", folder.path().join("config.yaml")).unwrap();
    let (mut gateway, admin) = serve(&folder.path().join("config.yaml"));

    symlink("..v2", folder.path().join("..data_tmp")).unwrap();
    fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    gateway.next_with("config reloaded");
    assert_eq!(burst(admin).await, 2);
}

#[tokio::test]
async fn sighup_reloads_at_once() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    fs::write(&file, config(1)).unwrap();
    let (mut gateway, _) = serve(&file);
    gateway.signal("HUP");
    gateway.next_with("config reloaded");
}

#[tokio::test]
async fn the_log_level_changes_while_running() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    fs::write(&file, config(1)).unwrap();
    let (gateway, _) = serve(&file);
    fs::write(&file, format!("{}telemetry: {{log: {{level: error}}}}\n", config(1))).unwrap();
    // At this level even the word of the reload is left out, so the end is quiet, too.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    gateway.signal("TERM");
    let (code, lines) = gateway.end();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("draining")), "{lines:#?}");
}

/// A config that is valid by itself: this identity, these tenants and these upstreams.
fn whole(identity: &str, tenants: &str, upstreams: &str) -> String {
    format!(
        "server: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:0'}}\nidentity: {identity}\n\
         tenants: {{{tenants}}}\nupstreams: {{{upstreams}}}\n"
    )
}

#[tokio::test]
async fn tenants_that_do_not_fit_the_identity_in_use_change_nothing() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    let upstreams = "main: {region: us-east-1, instances: ['*']}";
    let jwt = "{mode: jwt, jwt: {issuer: i, audience: a, jwks_url: 'http://127.0.0.1:9/keys'}}";
    let tenants = "demo: {instances: ['*'], rate: 50/s, burst: 1, subjects: [s]}";
    fs::write(&file, whole(jwt, tenants, upstreams)).unwrap();
    let (mut gateway, admin) = serve(&file);

    let other = "demo: {instances: ['*'], rate: 50/s, burst: 2}";
    fs::write(&file, whole("{mode: header}", other, upstreams)).unwrap();
    let line = gateway.next_with("config not reloaded");
    assert!(line.contains("tenants.demo.subjects"), "{line}");
    let line = gateway.next_with("needs a restart");
    assert!(line.contains("\"identity\""), "{line}");
    assert_eq!(burst(admin).await, 1);
}

#[tokio::test]
async fn a_tenant_is_not_sent_to_another_account_than_the_file_says() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    let old = "demo: {instances: [i-1], rate: 50/s, burst: 1}";
    fs::write(&file, whole("{mode: header}", old, "any: {region: us-east-1, instances: ['*']}"))
        .unwrap();
    let (mut gateway, admin) = serve(&file);

    let two =
        "any: {region: us-east-1, instances: ['*']}, new: {region: eu-west-1, instances: [i-2]}";
    let tenants = "demo: {instances: [i-1, i-2], rate: 50/s, burst: 2}";
    fs::write(&file, whole("{mode: header}", tenants, two)).unwrap();
    let line = gateway.next_with("config not reloaded");
    assert!(line.contains("tenants.demo.instances") && line.contains("i-2"), "{line}");
    let line = gateway.next_with("needs a restart");
    assert!(line.contains("upstreams.new"), "{line}");
    assert_eq!(burst(admin).await, 1);

    // A tenant that needs nothing of the new upstream is changed all the same.
    let tenants = "demo: {instances: [i-1], rate: 50/s, burst: 3}";
    fs::write(&file, whole("{mode: header}", tenants, two)).unwrap();
    gateway.next_with("config reloaded");
    assert_eq!(burst(admin).await, 3);
}

#[tokio::test]
async fn shares_are_summed_up_over_the_upstreams_in_use() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    let tenants = |share: u32| {
        let tenant = format!("{{instances: [i-1], rate: 50/s, burst: 1, committed: {share}/s}}");
        format!("demo: {tenant}, second: {tenant}")
    };
    let upstreams = "main: {region: us-east-1, instances: [i-1], rate: 3/s}";
    fs::write(&file, whole("{mode: header}", &tenants(1), upstreams)).unwrap();
    let (mut gateway, _) = serve(&file);

    let upstreams = "main: {region: us-east-1, instances: [i-2], rate: 3/s}, \
                     two: {region: us-east-1, instances: [i-1], rate: 9/s}";
    fs::write(&file, whole("{mode: header}", &tenants(2), upstreams)).unwrap();
    let line = gateway.next_with("config not reloaded");
    assert!(line.contains("upstreams.main.rate"), "{line}");
}

#[tokio::test]
async fn sealing_keys_may_move_to_another_file() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    let sealing = |name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, participant_gateway::admission::keygen().unwrap().as_bytes()).unwrap();
        format!("{}idempotency: {{sealing_keys_file: '{}'}}\n", config(1), path.display())
    };
    fs::write(&file, sealing("one")).unwrap();
    let (mut gateway, admin) = serve(&file);
    fs::write(&file, sealing("two")).unwrap();
    gateway.next_with("config reloaded");
    let shown: Value = serde_json::from_str(&http_get(admin, "/config").await.1).unwrap();
    assert!(shown["idempotency"]["sealing_keys_file"].as_str().unwrap().ends_with("two"));
    gateway.signal("HUP");
    gateway.next_with("config reloaded");
    assert!(
        !gateway.seen().iter().any(|line| line.contains("needs a restart")),
        "{:#?}",
        gateway.seen()
    );
}

#[tokio::test]
async fn a_config_whose_files_come_after_it_is_used_once_they_are_there() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml");
    let keys = folder.path().join("keys");
    fs::write(&file, config(1)).unwrap();
    let (mut gateway, admin) = serve(&file);
    let with_keys =
        format!("{}idempotency: {{sealing_keys_file: '{}'}}\n", config(2), keys.display());
    fs::write(&file, with_keys).unwrap();
    gateway.next_with("config not reloaded");
    assert_eq!(burst(admin).await, 1);
    fs::write(&keys, participant_gateway::admission::keygen().unwrap().as_bytes()).unwrap();
    gateway.next_with("config reloaded");
    assert_eq!(burst(admin).await, 2);
}
