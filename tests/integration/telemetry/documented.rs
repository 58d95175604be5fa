//! What docs/operations.md says of metrics is what `/metrics` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::support::redis::RedisServer;
use crate::support::{gateway, request};

/// Metrics and their labels.
type Table = BTreeMap<String, BTreeSet<String>>;

/// The rows that begin with a metric's name: `| name | type | labels | meaning |`.
fn documented(text: &str) -> Table {
    let table = text.split("\n## Metrics").nth(1).unwrap().split("\n## ").next().unwrap();
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect();
    let row = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), quoted(cells.get(3)?)))
    };
    table.lines().filter_map(row).collect()
}

fn emitted(text: &str) -> Table {
    let mut table = Table::new();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    for (name, kind) in names {
        let series = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
        let labels = text
            .lines()
            .filter_map(|line| line.strip_prefix(&series)?.strip_prefix('{')?.split_once('}'));
        let labels = labels.flat_map(|(labels, _)| labels.split("\","));
        let labels = labels.filter_map(|label| Some(label.split_once('=')?.0.to_owned())).collect();
        table.insert(name.to_owned(), labels);
    }
    table
}

#[tokio::test]
async fn the_documented_metrics_and_labels_are_the_emitted_ones() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let redis = RedisServer::shared().await;
    let gateway = gateway()
        .on_redis(&redis.url(), &uuid::Uuid::new_v4().to_string())
        .start()
        .await;
    gateway.call(request("contact-1")).await.unwrap();
    gateway.call(request("sim-internal")).await.unwrap_err();
    let emitted = emitted(&gateway.admin("/metrics").await.1);
    let documented = documented(&docs);
    assert!(documented.len() > 15, "{documented:?}");
    // The exporter's own, about the process as a whole.
    let known = |name: &String| documented.contains_key(name) || name == "target_info";
    assert_eq!(emitted.keys().find(|name| !known(name)), None, "a metric is not documented");
    for (name, labels) in documented {
        // Only with TLS.
        if name == "participant_gateway_certificate_expiry_seconds" {
            continue;
        }
        let shown = emitted.get(&name).unwrap_or_else(|| panic!("{name} is not emitted"));
        // Redis does not fail here.
        let mut missing = labels
            .difference(shown)
            .filter(|label| !(name.starts_with("db_") && *label == "error_type"));
        assert_eq!(missing.next(), None, "a label of {name}");
        assert_eq!(shown.difference(&labels).next(), None, "a label of {name} is not documented");
    }
}
