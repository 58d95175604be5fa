//! Frames that no honest client sends, by hand over a socket, with an honest caller beside them. The
//! gateway is a process of its own, so that the memory measured is the gateway's alone.

use std::time::{Duration, Instant};

use participant_gateway::proto::participant_service_client::ParticipantServiceClient;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::support::gateway::Child;
use crate::support::raw::{METHOD, framed};
use crate::support::{gateway, of, request};

/// What became of a flood.
#[derive(Debug)]
struct Flooded {
    /// The server has ended its connection.
    ended: bool,
    /// What it could send, in bytes.
    sent: usize,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A call's headers (HPACK without a dynamic table).
fn call_headers() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(0x04, METHOD), (0x01, "localhost")] {
        block.push(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend_from_slice(value.as_bytes());
    }
    for (name, value) in
        [("content-type", "application/grpc"), ("te", "trailers"), ("x-tenant-id", "demo")]
    {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Opens a connection and repeats what `next` says until the server ends it or the time is over.
fn flood(
    gateway: &Child,
    settings: &[u8],
    mut next: impl FnMut(u32) -> Vec<u8> + Send + 'static,
    reads: bool,
) -> JoinHandle<Flooded> {
    let (addr, first) = (gateway.addr, [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat());
    tokio::spawn(async move {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (mut from, mut to) = stream.into_split();
        let reading = tokio::spawn(async move {
            let mut bytes = vec![0; 64 * 1024];
            while reads && from.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
            // Held, and not read.
            std::future::pending::<()>().await;
        });
        to.write_all(&first).await.unwrap();
        let mut sent = 0;
        let writing = async {
            for count in 0.. {
                let bytes = next(count);
                if to.write_all(&bytes).await.is_err() {
                    break;
                }
                sent += bytes.len();
                tokio::task::yield_now().await;
            }
        };
        let ended = tokio::time::timeout(WHILE, writing).await.is_ok();
        reading.abort();
        Flooded { ended, sent }
    })
}

/// An honest caller, and the gateway's memory before any flood.
struct Honest<'a> {
    gateway: &'a Child,
    client: ParticipantServiceClient<Channel>,
    before_mib: u64,
}

impl<'a> Honest<'a> {
    async fn caller(gateway: &'a Child) -> Self {
        let mut client = gateway.client().await;
        client.create_participant(of("demo", request("warm-up"))).await.unwrap();
        Self { gateway, client, before_mib: gateway.running.resident_mib() }
    }

    /// Beside the flood: every call succeeds, soon, and memory grows by no more than `most_mib`.
    async fn beside(mut self, flood: JoinHandle<Flooded>, most_mib: u64) -> Flooded {
        let started = Instant::now();
        let mut took = Vec::new();
        while started.elapsed() < WHILE {
            let call = Instant::now();
            let answer = self.client.create_participant(of("demo", request("honest"))).await;
            answer.expect("an honest call failed");
            took.push(call.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let grown = self.gateway.running.resident_mib().saturating_sub(self.before_mib);
        took.sort();
        let p99 = took[took.len() * 99 / 100];
        let flooded = flood.await.unwrap();
        println!("{flooded:?}: {grown} MiB, {} honest calls, p99 {p99:?}", took.len());
        assert!(p99 < Duration::from_millis(500), "an honest call took {p99:?}");
        assert!(grown < most_mib, "{grown} MiB for a flood");
        flooded
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn rapid_resets_end_the_connection() {
    let gateway = gateway().serve().await;
    let honest = Honest::caller(&gateway).await;
    let block = call_headers();
    let next = move |count: u32| {
        let stream = 2 * count + 1;
        [
            frame(HEADERS, END_HEADERS, stream, &block),
            frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
        ]
        .concat()
    };
    let flood = flood(&gateway, &[], next, true);
    let flooded = honest.beside(flood, MOST_MIB).await;
    assert!(flooded.ended, "the flood was let run: {flooded:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn endless_continuations_end_the_connection() {
    let gateway = gateway().serve().await;
    let honest = Honest::caller(&gateway).await;
    let next = |count: u32| match count {
        0 => frame(HEADERS, 0, 1, &call_headers()),
        _ => frame(CONTINUATION, 0, 1, &[&[0, 1, b'x', 100][..], &[b'y'; 100]].concat()),
    };
    let flood = flood(&gateway, &[], next, true);
    let flooded = honest.beside(flood, MOST_MIB).await;
    assert!(flooded.ended, "the flood was let run: {flooded:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn settings_and_pings_cost_no_memory_whether_their_answers_are_read_or_not() {
    for (kind, payload) in [(SETTINGS, &[][..]), (PING, &[7; 8])] {
        for reads in [true, false] {
            let gateway = gateway().serve().await;
            let honest = Honest::caller(&gateway).await;
            let many = frame(kind, 0, 0, payload).repeat(64);
            let flood = flood(&gateway, &[], move |_| many.clone(), reads);
            let flooded = honest.beside(flood, MOST_MIB).await;
            // The gateway stops reading from a client that does not read its answers.
            let many = if reads { 1 << 20 } else { 64 * 1024 };
            assert!(flooded.ended || flooded.sent > many, "hardly a flood: {flooded:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_window_of_zero_holds_nothing_but_its_own_answers() {
    // More answers are held back than calls may be in flight: what waits for a reader is no longer
    // a call.
    let gateway = gateway().with("/server/max_in_flight", 100).serve().await;
    let honest = Honest::caller(&gateway).await;
    let (block, call) = (call_headers(), framed(0, &request("held").encode_to_vec()));
    // SETTINGS_INITIAL_WINDOW_SIZE = 0; then streams whose answers cannot be sent.
    let next = move |count: u32| match count {
        0..200 => {
            let stream = 2 * count + 1;
            [frame(HEADERS, END_HEADERS, stream, &block), frame(DATA, END_STREAM, stream, &call)]
                .concat()
        }
        _ => Vec::new(),
    };
    let flood = flood(&gateway, &[0, 4, 0, 0, 0, 0], next, true);
    gateway.attempted(50).await;
    // The first of them are still calls, and may take every place.
    gateway.metric_is("participant_gateway_in_flight 0").await;
    let flooded = honest.beside(flood, MOST_MIB).await;
    assert!(!flooded.ended, "a slow reader was thrown out");
    let held = gateway
        .journal
        .attempts()
        .iter()
        .filter(|attempt| attempt.contact_id.as_deref() == Some("held"))
        .count();
    assert!(held >= 50, "only {held} calls were taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn thousands_of_idle_connections_are_held_beside_an_honest_caller() {
    let gateway = gateway().serve().await;
    let honest = Honest::caller(&gateway).await;
    let mut idle = Vec::new();
    let count = idle_connections();
    for _ in 0..count {
        let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
        stream
            .write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())
            .await
            .unwrap();
        idle.push(stream);
    }
    let no_flood = tokio::spawn(async { Flooded { ended: false, sent: 0 } });
    honest.beside(no_flood, count as u64 * IDLE_KIB / 1024).await;
    for stream in &mut idle {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.expect("an idle connection was dropped");
        assert_ne!(head[3], GOAWAY);
    }
}

/// As many as this process may hold, beside what the tests that run with this one hold.
fn idle_connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let files: usize = line.split_whitespace().next().unwrap().parse().unwrap_or(65_536);
    files.saturating_sub(400).min(3000)
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// While a flood runs, and for this long at least, an honest caller calls.
const WHILE: Duration = Duration::from_secs(3);

/// What a flood may cost, in MiB.
const MOST_MIB: u64 = 32;

/// What an idle connection may cost, in KiB: mostly the buffers of hyper's and h2's.
const IDLE_KIB: u64 = 64;
