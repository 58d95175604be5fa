//! The listeners of both families, and requests that are compressed.

use std::io::Write;
use std::net::SocketAddr;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use participant_gateway::proto::participant_service_client::ParticipantServiceClient;
use participant_gateway::proto::quota_service_client::QuotaServiceClient;
use participant_gateway::proto::{CreateParticipantRequest, GetQuotaRequest};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use super::{call, row, simulator};
use crate::support::raw::{METHOD, framed, post};
use crate::support::{gateway, http_get, of, request, set};

#[tokio::test]
async fn both_families_are_served_where_nothing_else_is_said() {
    let (mut config, _) = simulator().await;
    // The default's address; the port is the system's.
    for section in ["server", "admin"] {
        set(&mut config, &format!("/{section}/listen"), "[::]:0".into());
    }
    let serving = super::serve_in(config.clone(), &super::KEYS).await;
    for host in ["127.0.0.1", "[::1]"] {
        let addr = |of: SocketAddr| format!("{host}:{}", of.port()).parse().unwrap();
        assert_eq!(call(addr(serving.addr), host).await, Ok(false), "{host}");
        assert_eq!(http_get(addr(serving.admin), "/livez").await.0, 200, "{host}");
    }
    let shown = participant_gateway::config::Settings::parse(
        &{
            let mut config = config;
            config
                .as_object_mut()
                .unwrap()
                .retain(|key, _| key != "server" && key != "admin");
            config.to_string()
        },
        [],
    );
    let shown = shown.unwrap().redacted();
    assert_eq!(shown["server"]["listen"], "[::]:50051");
    assert_eq!(shown["admin"]["listen"], "[::]:9090");
    row("IPv6 and IPv4 by default", "both serve, on both ports");
}

#[tokio::test]
async fn requests_by_gzip_are_read_and_answers_are_plain() {
    let gateway = gateway().start().await;
    let mut client = ParticipantServiceClient::new(gateway.channel().await)
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let answer = client.create_participant(of("demo", request("contact-1"))).await.unwrap();
    assert_eq!(answer.metadata().get("grpc-encoding"), None);
    let mut quotas =
        QuotaServiceClient::new(gateway.channel().await).send_compressed(CompressionEncoding::Gzip);
    quotas
        .get_quota(of("demo", GetQuotaRequest { instance_id: "instance-1".to_owned() }))
        .await
        .unwrap();
    let mut health =
        HealthClient::new(gateway.channel().await).send_compressed(CompressionEncoding::Gzip);
    health.check(HealthCheckRequest::default()).await.unwrap();
    row("requests by gzip: ours and health", "read; answers are plain");
}

#[test]
fn two_ports_of_ours_never_take_each_others_place() {
    let refused = |server: &str, admin: &str| {
        let mut config = super::config(serde_json::json!({}));
        set(&mut config, "/server/listen", server.into());
        set(&mut config, "/admin/listen", admin.into());
        participant_gateway::config::Settings::parse(&config.to_string(), []).is_err()
    };
    for (server, admin, expected) in [
        ("[::]:7000", "[::]:7000", true),
        ("[::]:7000", "0.0.0.0:7000", true),
        ("127.0.0.1:7000", "[::]:7000", true),
        ("0.0.0.0:7000", "127.0.0.1:7000", true),
        ("[::]:7000", "[::]:7001", false),
        ("[::1]:7000", "0.0.0.0:7000", false),
        ("[::]:0", "[::]:0", false),
    ] {
        assert_eq!(refused(server, admin), expected, "{server} and {admin}");
    }
}

fn gzip(message: &CreateParticipantRequest) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&message.encode_to_vec()).unwrap();
    framed(1, &encoder.finish().unwrap())
}

#[tokio::test]
async fn what_inflates_beyond_the_limit_is_too_large_and_what_is_no_gzip_is_malformed() {
    let gateway = gateway().with("/server/max_request_bytes", 4096).start().await;
    let headers = [("x-tenant-id", "demo"), ("grpc-encoding", "gzip")];
    let of_size = |bytes: usize| {
        let mut message = request("contact-1");
        message.client_token = "a".repeat(400);
        let rest = bytes - message.encoded_len();
        // A field's key and length take three bytes.
        message.instance_id.push_str(&"i".repeat(rest));
        message
    };
    let mut reasons = Vec::new();
    for (what, body) in [
        ("within", gzip(&of_size(4000))),
        ("beyond", gzip(&of_size(5000))),
        ("by far", gzip(&of_size(50_000_000))),
        ("no gzip", framed(1, b"plainly not gzip")),
        ("cut off", framed(1, &gzip(&of_size(4000))[5..40])),
    ] {
        let status = post(&gateway, METHOD, &headers, body).await;
        reasons.push((what, status.get_details_error_info().unwrap().reason));
    }
    let reasons: Vec<_> = reasons.iter().map(|(what, reason)| (*what, reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            // Its instance id is too long, so it was read.
            ("within", "INVALID_REQUEST"),
            ("beyond", "REQUEST_TOO_LARGE"),
            ("by far", "REQUEST_TOO_LARGE"),
            ("no gzip", "MALFORMED_REQUEST"),
            ("cut off", "MALFORMED_REQUEST"),
        ]
    );
    row("50 MB in a gzip of 50 KB, `max_request_bytes: 4096`", "REQUEST_TOO_LARGE");
}
