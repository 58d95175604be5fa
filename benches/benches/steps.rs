//! The steps of a call that take no socket: their times, and what they allocate.
//! `cargo bench -p participant-gateway-benches 2>/dev/null`.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use divan::{AllocProfiler, Bencher, black_box};
use http::HeaderMap;
use mimalloc::MiMalloc;
use participant_gateway::admission::Keys;
use participant_gateway::call::{Disposition, Notes};
use participant_gateway::config::shape::LogFormat;
use participant_gateway::config::{Level, Settings};
use participant_gateway::domain::{CreateParticipant, Name, Participant, ParticipantToken};
use participant_gateway::error::{Error, Limit};
use participant_gateway::grpc::{Line, decode, status};
use participant_gateway::net::Peer;
use participant_gateway::proto;
use participant_gateway::telemetry::{self, Span, Telemetry};
use prost::Message;

fn main() {
    divan::main();
}

/// From bytes to a call that has passed every rule.
#[divan::bench]
fn decode(bencher: Bencher) {
    let bytes = request().encode_to_vec();
    bencher.bench(|| {
        let message = proto::CreateParticipantRequest::decode(black_box(&*bytes)).unwrap();
        decode::create_participant(message, false).unwrap()
    });
}

/// The record's name, the fingerprint, Connect's token and their MAC.
#[divan::bench]
fn fingerprint(bencher: Bencher) {
    let (keys, tenant, upstream) = (keys(), name("acme"), name("main"));
    let call = call();
    bencher.bench(|| keys.record(&tenant, &upstream, black_box(&call), Duration::from_hours(24)));
}

/// The result as it is stored.
#[divan::bench]
fn seal(bencher: Bencher) {
    let (keys, participant) = (keys(), participant());
    bencher.bench(|| keys.seal("name", "fingerprint", black_box(&participant)).unwrap());
}

/// The stored result of a replay.
#[divan::bench]
fn open(bencher: Bencher) {
    let keys = keys();
    let sealed = keys.seal("name", "fingerprint", &participant()).unwrap();
    bencher.bench(|| keys.open("name", "fingerprint", black_box(&sealed)).unwrap());
}

/// A refusal, with all its details and metadata.
#[divan::bench]
fn error_details(bencher: Bencher) {
    let notes = notes();
    let error =
        Error::Limited { limit: Limit::TenantRate, retry_after: Duration::from_millis(250) };
    bencher.bench(|| status::refuse(black_box(&error), &notes));
}

/// The line of a call, its count and the end of its span. The lines go to standard error.
#[divan::bench]
fn log_line(bencher: Bencher) {
    let _ = telemetry::init_on_stderr(LogFormat::Json, Level::Info);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let telemetry = Telemetry::start(&settings().otlp).unwrap();
    let (notes, span) = (Arc::new(notes()), Span::default());
    let peer = Peer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000)));
    let method = "participantgateway.v1.ParticipantService/CreateParticipant";
    bencher
        .bench(|| Line::begin(method, black_box(&notes), &span, &peer, &telemetry.metrics).write());
}

fn request() -> proto::CreateParticipantRequest {
    proto::CreateParticipantRequest {
        instance_id: "11111111-2222-3333-4444-555555555555".to_owned(),
        contact_id: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee".to_owned(),
        client_token: "0123456789abcdef0123".to_owned(),
        participant_details: Some(proto::ParticipantDetails {
            participant_role: proto::ParticipantRole::CustomBot.into(),
            display_name: "Support Bot".to_owned(),
            participant_capabilities: None,
        }),
    }
}

fn call() -> CreateParticipant {
    decode::create_participant(request(), false).unwrap()
}

fn participant() -> Participant {
    Participant {
        id: "c4a3b1f2-0d5e-4f6a-8b7c-9d0e1f2a3b4c".to_owned(),
        token: ParticipantToken::new("t".repeat(256)),
        expiry: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
        create_time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_799_000_000),
    }
}

/// Of a call that was refused by its tenant's rate.
fn notes() -> Notes {
    let notes = Notes::new(&HeaderMap::new());
    notes.note_tenant(&name("acme"));
    notes.note_upstream(&name("main"));
    notes.note_disposition(Disposition::TenantRate, false);
    notes
}

fn keys() -> Keys {
    Keys::parse(None, None).unwrap()
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn settings() -> Settings {
    let config = r#"{
        "identity": { "mode": "header" },
        "tenants": { "acme": { "instances": ["*"], "rate": "1/s", "burst": 1 } },
        "upstreams": { "main": { "region": "us-east-1", "instances": ["*"] } },
        "store": { "kind": "memory" }
    }"#;
    Settings::parse(config, []).unwrap()
}

#[global_allocator]
static ALLOCATOR: AllocProfiler<MiMalloc> = AllocProfiler::new(MiMalloc);
