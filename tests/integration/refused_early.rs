//! What is refused before it costs anything: too large, unreadable, unknown, unfinished.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::support::raw::{METHOD, framed, post};
use crate::support::status::seen;
use crate::support::{Front, gateway, of, request, until};

#[tokio::test]
async fn a_request_over_the_limit_is_refused_before_it_is_buffered() {
    let gateway = gateway().with("/server/max_request_bytes", 1024).start().await;
    let mut large = request("contact-1");
    large.client_token = "x".repeat(2000);
    let status = gateway.call(large).await.unwrap_err();
    assert_eq!(seen(&status), (Code::ResourceExhausted, "REQUEST_TOO_LARGE"));

    // Only the length is sent: where the body were awaited, this would end at the deadline.
    let head = Bytes::from_static(&[0, 0x7f, 0xff, 0xff, 0xff]);
    let status = post(&gateway, METHOD, &[("x-tenant-id", "demo")], head).await;
    assert_eq!(seen(&status), (Code::ResourceExhausted, "REQUEST_TOO_LARGE"));
}

type Unfinished = http_body_util::StreamBody<
    tokio_stream::Pending<Result<http_body::Frame<Bytes>, std::convert::Infallible>>,
>;

async fn connect(
    addr: std::net::SocketAddr,
) -> hyper::client::conn::http2::SendRequest<Unfinished> {
    let stream = hyper_util::rt::TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A request whose body never comes.
fn unfinished(
    addr: std::net::SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> http::Request<Unfinished> {
    let mut request = http::Request::post(format!("http://{addr}{path}"))
        .header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(http_body_util::StreamBody::new(tokio_stream::pending())).unwrap()
}

#[tokio::test]
async fn a_tenant_that_sends_its_requests_by_halves_leaves_places_to_others() {
    let gateway = gateway()
        .with("/server/max_in_flight", 8)
        .with("/tenants/evil", serde_json::json!({ "instances": ["*"], "rate": "1/s", "burst": 1 }))
        .start()
        .await;
    let mut sender = connect(gateway.addr).await;
    let mut halves = tokio::task::JoinSet::new();
    for _ in 0..12 {
        halves.spawn(sender.send_request(unfinished(
            gateway.addr,
            METHOD,
            &[("x-tenant-id", "evil")],
        )));
    }
    for _ in 0..8 {
        let refused = halves.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(
            Status::from_header_map(refused.headers()).unwrap().code(),
            Code::ResourceExhausted
        );
    }
    gateway.call(request("contact-1")).await.unwrap();
    assert_eq!(halves.len(), 4, "half of the places are one tenant's at most");
}

#[tokio::test]
async fn streams_that_ask_for_no_identity_are_bounded_and_checks_go_on() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    let gateway = gateway().start().await;
    let mut watches = Vec::new();
    for _ in 0..8 {
        let mut health = HealthClient::new(gateway.channel().await);
        for _ in 0..128 {
            watches.push(health.watch(HealthCheckRequest::default()).await.unwrap());
        }
    }
    let mut health = HealthClient::new(gateway.channel().await);
    let refused = health.watch(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(seen(&refused), (Code::ResourceExhausted, "OVERLOADED"));
    health.check(HealthCheckRequest::default()).await.unwrap();
    watches.clear();
    until("places come back", async || health.watch(HealthCheckRequest::default()).await.is_ok())
        .await;
}

#[tokio::test]
async fn health_asks_for_no_identity_but_buffers_no_more_than_calls_and_waits_no_longer() {
    let gateway = gateway()
        .with("/server/max_request_bytes", 1024)
        .with("/server/default_timeout", "300ms")
        .start()
        .await;
    // No more than this is allowed by tonic itself.
    let large = Bytes::from_static(&[0, 0x00, 0x3f, 0xff, 0xff]);
    for path in ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"] {
        let status = post(&gateway, path, &[], large.clone()).await;
        assert_eq!(seen(&status), (Code::ResourceExhausted, "REQUEST_TOO_LARGE"), "{path}");
    }

    let mut sender = connect(gateway.addr).await;
    for path in ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"] {
        let unfinished = sender.send_request(unfinished(gateway.addr, path, &[]));
        let answer = tokio::time::timeout(Duration::from_secs(5), unfinished).await;
        let answer = answer.expect("it is bounded").unwrap();
        assert_eq!(
            Status::from_header_map(answer.headers()).unwrap().code(),
            Code::DeadlineExceeded
        );
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_malformed() {
    let gateway = gateway().start().await;
    for (name, body) in [
        ("no message", Bytes::new()),
        ("half a frame", Bytes::from_static(&[0, 0, 0, 0, 9, 1])),
        ("not protobuf", framed(0, &[0xff; 16])),
        ("a wrong flag", framed(7, &[])),
        ("compressed without saying how", framed(1, &request("contact-1").encode_to_vec())),
        ("not UTF-8", framed(0, &[0x0a, 0x01, 0xff])),
    ] {
        let status = post(&gateway, METHOD, &[("x-tenant-id", "demo")], body).await;
        assert_eq!(seen(&status), (Code::InvalidArgument, "MALFORMED_REQUEST"), "{name}");
    }
    assert_eq!(gateway.journal.attempt_count(), 0);
}

#[tokio::test]
async fn another_compression_than_gzip_is_refused_as_such() {
    let gateway = gateway().start().await;
    for path in [METHOD, "/grpc.health.v1.Health/Check"] {
        let body = framed(1, &request("contact-1").encode_to_vec());
        let headers = [("x-tenant-id", "demo"), ("grpc-encoding", "deflate")];
        let status = post(&gateway, path, &headers, body).await;
        assert_eq!(seen(&status), (Code::Unimplemented, "UNSUPPORTED_ENCODING"));
        let accepted = status.metadata().get("grpc-accept-encoding").unwrap();
        assert_eq!(accepted, "identity,gzip");
    }
}

#[tokio::test]
async fn what_is_not_grpc_is_told_so_in_https_own_terms() {
    let gateway = gateway().start().await;
    for (method, kind, status) in [
        ("GET", "application/grpc", 405),
        ("POST", "application/json", 415),
        ("POST", "application/grpc-web", 415),
    ] {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{METHOD}", gateway.addr));
        let request = request.header("content-type", kind).header("x-tenant-id", "demo");
        let stream = TcpStream::connect(gateway.addr).await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        let body = http_body_util::Full::new(framed(
            0,
            &crate::support::request("contact-1").encode_to_vec(),
        ));
        let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{method} {kind}");
    }
    assert_eq!(gateway.journal.attempt_count(), 0);
}

#[tokio::test]
async fn the_caller_is_known_before_the_message_is_read() {
    let gateway = gateway().start().await;
    let status = post(&gateway, METHOD, &[], framed(0, &[0xff; 16])).await;
    assert_eq!(seen(&status), (Code::Unauthenticated, "UNAUTHENTICATED"));
}

#[tokio::test]
async fn unknown_methods_and_services_are_unimplemented() {
    let gateway = gateway().start().await;
    for path in [
        "/participantgateway.v1.ParticipantService/DeleteParticipant",
        "/nobody.v1.Nothing/Do",
        "/",
    ] {
        let status = post(&gateway, path, &[], framed(0, &[])).await;
        assert_eq!(seen(&status), (Code::Unimplemented, "UNKNOWN_METHOD"), "{path}");
    }
}

/// How a call with so long a header ends, on a connection that goes on afterwards.
async fn with_a_header_of(gateway: &Front, bytes: usize) -> Result<(), Status> {
    let mut client = gateway.client().await;
    let mut call = of("demo", request("contact-1"));
    call.metadata_mut().insert("x-request-id", "long".parse().unwrap());
    call.metadata_mut().insert("x-long", "x".repeat(bytes).parse().unwrap());
    let called = client.create_participant(call).await.map(drop);
    client
        .create_participant(of("demo", request("contact-1")))
        .await
        .expect("the connection was lost with it");
    called
}

#[tokio::test]
async fn a_header_list_over_the_limit_is_refused_in_our_terms_up_to_twice_that() {
    for (limit, kib) in [(None, 16), (Some(4096), 4), (Some(65_536), 64)] {
        let gateway = match limit {
            Some(limit) => gateway().with("/server/max_header_bytes", limit),
            None => gateway(),
        };
        let gateway = gateway.start().await;
        // The other headers are less than 1 KiB.
        with_a_header_of(&gateway, (kib - 1) * 1024).await.unwrap();
        let attempts = gateway.journal.attempt_count();
        for bytes in [kib * 1024, (2 * kib - 1) * 1024] {
            let status = with_a_header_of(&gateway, bytes).await.unwrap_err();
            let expected = (Code::ResourceExhausted, "REQUEST_TOO_LARGE");
            assert_eq!(seen(&status), expected, "{bytes} over {kib} KiB");
            assert_eq!(status.metadata().get("x-request-id").unwrap(), "long");
            assert_eq!(seen(&status).pushback.as_deref(), Some("-1"));
        }
        let beyond = with_a_header_of(&gateway, 2 * kib * 1024).await.unwrap_err();
        assert!(beyond.details().is_empty(), "{beyond:?}");
        // Each refused call's connection served one more.
        assert_eq!(gateway.journal.attempt_count(), attempts + 3);
    }
}

#[tokio::test]
async fn a_connection_without_a_preface_is_closed_after_ten_seconds() {
    let gateway = gateway().start().await;
    let started = std::time::Instant::now();
    let silent = async {
        let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
        while stream.read(&mut [0; 1024]).await.is_ok_and(|bytes| bytes > 0) {}
    };
    let halting = async {
        let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
        while stream.read(&mut [0; 1024]).await.is_ok_and(|bytes| bytes > 0) {}
    };
    let both = async { tokio::join!(silent, halting) };
    tokio::time::timeout(Duration::from_secs(15), both)
        .await
        .expect("a connection was held");
    assert!(started.elapsed() >= Duration::from_secs(9), "{:?}", started.elapsed());
}

#[tokio::test]
async fn streams_on_a_connection_are_bounded() {
    let gateway = gateway().with("/server/max_concurrent_streams", 2).start().await;
    let mut client = gateway.client().await;
    // Only with the first answer does a client surely know the server's settings.
    client.create_participant(of("demo", request("contact-1"))).await.unwrap();
    let calls = join_all((0..4).map(|_| {
        let mut client = client.clone();
        async move { client.create_participant(of("demo", request("sim-slow-300"))).await }
    }));
    calls.await.into_iter().for_each(|answer| drop(answer.unwrap()));
    // The third call could only be sent once the first had its answer.
    let attempts = gateway.journal.attempts();
    let apart = attempts[3].received_at.duration_since(attempts[1].received_at);
    assert!(apart.as_millis() >= 300, "more streams than allowed: {apart:?}");
}

#[tokio::test]
async fn a_connection_that_http2_refuses_is_counted_with_its_reason() {
    let gateway = gateway().start().await;
    let refused = "participant_gateway_connections_refused_total{reason=\"protocol_error\"} 1";
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    gateway.metric_is(refused).await;

    // Who connects and leaves, as a load balancer's health check does, is refused nothing.
    drop(TcpStream::connect(gateway.addr).await.unwrap());
    gateway.call(request("contact-1")).await.unwrap();
    gateway.metric_is(refused).await;
    let text = gateway.admin("/metrics").await.1;
    let others = text.lines().filter(|line| line.contains("connections_refused_total{"));
    assert_eq!(others.filter(|line| !line.ends_with(" 0")).collect::<Vec<_>>(), [refused]);
}
