//! The port that operators use.

use crate::support::gateway;

#[tokio::test]
async fn the_admin_port_tells_liveness_readiness_and_the_config() {
    let gateway = gateway().start().await;
    assert_eq!(gateway.admin("/livez").await.0, 200);
    assert_eq!(gateway.admin("/readyz").await.0, 200);
    let (status, config) = gateway.admin("/config").await;
    assert_eq!(status, 200);
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["server"]["default_timeout"], "10s");
    assert_eq!(config["tenants"]["demo"]["rate"], "1000/s");
    assert_eq!(gateway.admin("/nothing").await.0, 404);
}
