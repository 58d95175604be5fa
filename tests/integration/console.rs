//! The console and `/status`: what they show, and what they never do.

use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use participant_gateway::simulator;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::process::{Running, program};
use crate::support::redis::RedisServer;
use crate::support::{Front, gateway, of, request, request_with_token, until, until_within};

/// An HTTP/1.1 request without a body: the status, the headers and the body of its answer.
async fn ask(gateway: &Front, method: &str, path: &str) -> (u16, HeaderMap, String) {
    let mut stream = tokio::net::TcpStream::connect(gateway.admin).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())
    });
    (status, headers.collect(), body.to_owned())
}

async fn status(gateway: &Front) -> Value {
    let (status, _, body) = ask(gateway, "GET", "/status").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The tenant's row on upstream `main`.
fn row<'a>(status: &'a Value, tenant: &str) -> &'a Value {
    let rows = status["tenants"]["shown"].as_array().unwrap();
    rows.iter()
        .find(|row| row["tenant"] == tenant)
        .unwrap_or_else(|| panic!("{tenant}: {status}"))
}

fn troubles(status: &Value) -> Vec<String> {
    let troubles = status["troubles"].as_array().unwrap();
    troubles
        .iter()
        .map(|trouble| trouble["text"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn the_status_tells_a_scripted_run() {
    let gateway = gateway()
        .with("/tenants/tight", json!({ "instances": ["*"], "rate": "1/h", "burst": 1 }))
        .with("/tenants/demo/committed", "5/s")
        .with("/upstreams/main/max_attempts", 1)
        .start()
        .await;
    let mut client = gateway.client().await;
    let mut call = async |tenant: &str, id: &str, message| {
        let mut request = of(tenant, message);
        request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        client.create_participant(request).await
    };
    call("demo", "one", request_with_token("contact-1", "token-1")).await.unwrap();
    call("demo", "two", request_with_token("contact-1", "token-1")).await.unwrap();
    call("demo", "three", request("sim-throttled")).await.unwrap_err();
    call("tight", "four", request("contact-1")).await.unwrap();
    call("tight", "five", request("contact-1")).await.unwrap_err();
    call("nobody", "six", request("contact-1")).await.unwrap_err();

    let status = status(&gateway).await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["ready"], &status["not_ready"]), (&json!(true), &Value::Null));
    assert_eq!(status["store"], json!({ "kind": "memory", "unsettled": 0 }));
    assert_eq!(status["credentials"], json!([{ "upstream": "main", "state": "valid" }]));

    let upstream = &status["upstreams"][0];
    assert_eq!((&upstream["name"], &upstream["circuit"]), (&json!("main"), &json!("closed")));
    assert_eq!(upstream["attempts"]["last_minute"], json!({ "ok": 2, "throttled": 1 }));
    let factor = upstream["factor"].as_f64().unwrap();
    assert!((0.5..0.9).contains(&factor), "{factor}");
    let in_use = upstream["rate_in_use_per_second"].as_f64().unwrap();
    assert!((in_use - 1000.0 * factor).abs() < 1e-6, "{in_use}");
    assert_eq!((&upstream["burst"], &upstream["queue"]), (&json!(1000), &json!(0)));
    assert!(upstream["level"].as_f64().unwrap() <= 1000.0);

    let demo = row(&status, "demo");
    let decided = &demo["decisions"]["last_minute"];
    assert_eq!((&decided["admitted"], &decided["replayed"]), (&json!(2), &json!(1)));
    assert_eq!((&demo["committed_per_second"], &demo["in_flight"]), (&json!(5.0), &json!(0)));
    assert_eq!(demo["decisions"]["plot"]["good"].as_array().unwrap().len(), 60);
    assert_eq!(demo["decisions"]["plot"]["bad"], json!([]));
    let tight = row(&status, "tight");
    assert_eq!(tight["decisions"]["last_minute"]["tenant_rate"], 1);
    assert!(tight["level"].as_f64().unwrap() < 0.1, "{tight}");

    let failed = status["failed_calls"].as_array().unwrap();
    let ids: Vec<_> = failed.iter().map(|call| call["request_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["six", "five", "three"]);
    assert_eq!(
        (&failed[0]["reason"], &failed[0]["refusal"]),
        (&json!("TENANT_UNKNOWN"), &json!("unknown_tenant"))
    );
    assert_eq!(failed[0]["tenant"], Value::Null);
    assert_eq!(failed[1]["code"], "RESOURCE_EXHAUSTED");
    assert_eq!(failed[1]["reason"], "TENANT_RATE_LIMITED");
    assert_eq!(failed[1]["sentence"], "The caller is above its rate: try again after the delay.");
    assert_eq!((&failed[2]["tenant"], &failed[2]["upstream"]), (&json!("demo"), &json!("main")));
    let troubles = troubles(&status);
    for said in [
        "Upstream main: Amazon Connect throttles.",
        "Tenant tight on main: 1 call was refused in the last minute by its rate of",
        "1 call was refused, since their callers are no tenants (TENANT_UNKNOWN)",
    ] {
        assert!(troubles.iter().any(|text| text.starts_with(said)), "{said}: {troubles:#?}");
    }
}

#[tokio::test]
async fn the_page_loads_nothing_but_its_own_parts_and_is_only_read() {
    let gateway = gateway().start().await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/console.css", "text/css; charset=utf-8"),
        ("/console.js", "text/javascript; charset=utf-8"),
        ("/console.svg", "image/svg+xml"),
        ("/status", "application/json"),
    ] {
        let (status, headers, body) = ask(&gateway, "GET", path).await;
        assert_eq!(status, 200, "{path}");
        let header = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(header("content-type"), kind, "{path}");
        let policy = header("content-security-policy");
        assert!(policy.contains("default-src 'self'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("cache-control"), "no-store", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        // An SVG names its language by an address.
        let plain = body.replace("http://www.w3.org/2000/svg", "");
        assert!(!plain.contains("http://") && !plain.contains("https://"), "{path}");

        let (status, headers, body) = ask(&gateway, "HEAD", path).await;
        assert_eq!((status, body.as_str()), (200, ""), "{path}");
        assert_eq!(headers["content-type"], kind, "{path}");
        for method in ["POST", "PUT", "DELETE"] {
            assert_eq!(ask(&gateway, method, path).await.0, 405, "{method} {path}");
        }
    }
    assert_eq!(ask(&gateway, "GET", "/console.txt").await.0, 404);
    let long = "x".repeat(64);
    assert_eq!(ask(&gateway, "GET", &format!("/status?tenant={long}")).await.0, 400);
}

#[tokio::test]
async fn a_console_that_is_switched_off_answers_404() {
    let gateway = gateway().with("/admin/console", false).start().await;
    for path in ["/", "/status", "/console.css", "/console.js", "/console.svg"] {
        assert_eq!(ask(&gateway, "GET", path).await.0, 404, "{path}");
    }
    for path in ["/livez", "/readyz", "/metrics", "/config"] {
        assert_eq!(ask(&gateway, "GET", path).await.0, 200, "{path}");
    }
    let config: Value = serde_json::from_str(&ask(&gateway, "GET", "/config").await.2).unwrap();
    assert_eq!(config["admin"]["console"], false);
}

#[tokio::test]
async fn no_secret_and_nothing_personal_is_shown() {
    let gateway = gateway().start().await;
    let mut client = gateway.client().await;
    let mut shown = String::new();
    let mut token = String::new();
    for contact in ["canary-contact", "sim-garbage", "sim-invalid", "sim-internal", "sim-conflict"]
    {
        let mut message = request_with_token(contact, &format!("canary-client-token-{contact}"));
        message.participant_details.as_mut().unwrap().display_name = "canary-name".to_owned();
        for tenant in ["demo", "canary-tenant"] {
            let mut request = of(tenant, message.clone());
            let bearer = "Bearer canary.jwt.signature".parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
            if let Ok(reply) = client.create_participant(request).await {
                token = reply.into_inner().participant_credentials.unwrap().participant_token;
            }
        }
    }
    for path in ["/", "/status", "/status?tenant=demo", "/console.js"] {
        shown += &ask(&gateway, "GET", path).await.2;
    }
    assert!(shown.contains("TENANT_UNKNOWN") && shown.contains("UPSTREAM_BAD_RESPONSE"));
    assert!(!token.is_empty() && !shown.contains(&token), "a participant token");
    assert!(!shown.contains("canary"), "{shown}");
    assert!(!shown.contains(simulator::SECRET_ACCESS_KEY));
    assert!(!shown.contains(simulator::ACCESS_KEY_ID));
}

#[tokio::test]
async fn a_lost_redis_is_told_with_its_time_and_its_meaning() {
    let mut server = RedisServer::start().await;
    let gateway = gateway().on_redis(&server.url(), "pg").with("/store/replicas", 3).start().await;
    gateway.call(request("contact-1")).await.unwrap();
    let before = status(&gateway).await;
    assert_eq!(
        (&before["store"]["kind"], &before["store"]["topology"]),
        (&json!("redis"), &json!("standalone"))
    );
    assert_eq!(before["store"]["degraded_since"], Value::Null);
    let round_trip = before["store"]["round_trip_seconds"].as_f64().unwrap();
    assert!(round_trip > 0.0 && round_trip < 1.0, "{round_trip}");
    let level = |status: &Value| row(status, "demo")["level"].as_f64();
    assert!((998.0..=1000.0).contains(&level(&before).unwrap()), "{before}");

    server.kill();
    let mut lost = Value::Null;
    until("the loss is told", async || {
        let _whatever = gateway.call(request("contact-1")).await;
        lost = status(&gateway).await;
        lost["store"]["degraded_since"].is_string()
    })
    .await;
    let told = troubles(&lost);
    assert!(told[0].starts_with("Redis is lost since 20"), "{told:?}");
    assert!(told[0].contains("1/3 of every limit"), "{told:?}");

    server.restart().await;
    until("the return is told", async || {
        let _whatever = gateway.call(request("contact-1")).await;
        status(&gateway).await["store"]["degraded_since"].is_null()
    })
    .await;
}

#[tokio::test]
async fn looking_reads_redis_once_a_second_and_not_looking_never() {
    let server = RedisServer::start().await;
    let gateway = gateway().on_redis(&server.url(), "pg").start().await;
    let reads = async || {
        let (_, text) = gateway.admin("/metrics").await;
        let name = "db_client_operation_duration_seconds_count";
        let is_read = |line: &&str| line.starts_with(name) && line.contains("\"quota\"");
        let read = text.lines().find(is_read).map_or("0", |line| line.rsplit(' ').next().unwrap());
        read.parse::<u64>().unwrap()
    };
    gateway.call(request("contact-1")).await.unwrap();
    assert_eq!(reads().await, 0);
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_millis(2500) {
        status(&gateway).await;
    }
    // One tenant: at once, and after each second.
    let read = reads().await;
    assert!((3..=4).contains(&read), "{read} readings in {:?}", started.elapsed());
}

#[tokio::test]
async fn of_ten_thousand_tenants_a_hundred_are_shown_and_each_can_be_found() {
    let tenant = json!({ "instances": ["*"], "rate": "10/s", "burst": 10 });
    let tenants: serde_json::Map<_, _> =
        (0..10_000).map(|number| (format!("tenant-{number}"), tenant.clone())).collect();
    let gateway = gateway().with("/tenants", tenants).start().await;
    for _ in 0..3 {
        let call = of("tenant-7777", request("contact-1"));
        gateway.client().await.create_participant(call).await.unwrap();
    }
    let all = status(&gateway).await;
    assert_eq!(all["tenants"]["matching"], 10_000);
    let shown = all["tenants"]["shown"].as_array().unwrap();
    assert_eq!((shown.len(), &shown[0]["tenant"]), (100, &json!("tenant-7777")));
    let found = ask(&gateway, "GET", "/status?tenant=tenant-998").await.2;
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["tenants"]["matching"], 11);
    assert_eq!(found["tenants"]["filter"], "tenant-998");
    assert!(row(&found, "tenant-9980")["burst"] == 10);
}

#[tokio::test]
async fn a_process_that_drains_says_so() {
    let gateway = gateway().start().await;
    let mut client = gateway.client().await;
    let slow = tokio::spawn(async move {
        client.create_participant(of("demo", request("sim-slow-2000"))).await
    });
    gateway.attempted(1).await;
    gateway.shut_down();
    until_within(Duration::from_secs(2), "it says that it drains", async || {
        status(&gateway).await["not_ready"] == "draining"
    })
    .await;
    assert_eq!(troubles(&status(&gateway).await), ["This process is not ready: draining."]);
    slow.await.unwrap().unwrap();
}

#[tokio::test]
async fn dev_prints_the_consoles_address_first_of_all() {
    let mut dev = program();
    dev.args(["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let mut dev = Running::start(dev);
    dev.line_with("ready").await;
    let first = dev.seen()[0].clone();
    let address = first.strip_prefix("# The console: http://").unwrap().trim_end_matches('/');
    let (status, page) = crate::support::http_get(address.parse().unwrap(), "/").await;
    assert_eq!(status, 200);
    assert!(page.contains("<title>Participant Gateway</title>"), "{page}");
}

/// `BLESS=1` writes it anew.
#[test]
fn the_schema_of_the_status_is_the_codes() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/status.schema.json");
    let schema = format!("{:#}\n", participant_gateway::console::json_schema());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, &schema).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == schema, "{} is behind: BLESS=1 writes it anew", file.display());
}
