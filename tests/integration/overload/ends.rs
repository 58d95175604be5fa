//! The ends of gateways and calls: a drain that runs out, no file descriptors.

use std::time::{Duration, Instant};

use tonic::Code;

use super::{pushback, row, within, word};
use crate::support::gateway::Child;
use crate::support::process::program;
use crate::support::redis::RedisServer;
use crate::support::status::seen;
use crate::support::{Fixture, gateway, request, request_with_token, until};

/// A gateway that ends with a call at Connect, and another over the same Redis.
async fn ending_and_staying(server: &RedisServer) -> (Child, Fixture) {
    let plan = || gateway().on_redis(&server.url(), "pg").with("/store/redis/timeout", "5s");
    let staying = plan().start().await;
    let ending = plan().with("/server/drain_timeout", "300ms").beside(&staying).serve().await;
    (ending, staying)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_the_drain_cuts_off_succeeds_elsewhere_at_once_with_its_token() {
    let server = RedisServer::start().await;
    let (ending, staying) = ending_and_staying(&server).await;
    let (mut there, mut here) = (ending.client().await, staying.client().await);
    let cut = tokio::spawn(async move {
        let call = request_with_token("sim-slow-1000", "token-1");
        within(&mut there, "demo", call, Duration::from_secs(10)).await
    });
    staying.attempted(1).await;
    ending.running.signal("TERM");
    let refused = cut.await.unwrap().unwrap_err();
    let cut_off = Instant::now();
    let call = request_with_token("sim-slow-1000", "token-1");
    let answer = within(&mut here, "demo", call, Duration::from_secs(5)).await;
    let took = cut_off.elapsed();
    let participants = staying.journal.participant_count();
    row(
        "a call that the drain cuts off succeeds elsewhere at once",
        "drain_timeout runs out under a call with a token, which comes again elsewhere",
        format!(
            "{} {}, then {} after {took:.1?}: {participants} participant",
            seen(&refused).reason,
            pushback(&refused).unwrap(),
            word(&answer)
        ),
    );
    assert_eq!(seen(&refused), (Code::Unavailable, "SHUTTING_DOWN"));
    answer.unwrap();
    // Connect takes 1 s. The lease would take 3 s.
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(participants, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_token_that_the_drain_cuts_off_is_repeated_by_no_library() {
    let server = RedisServer::start().await;
    let (ending, staying) = ending_and_staying(&server).await;
    let mut clients = [ending.client().await, staying.client().await];
    clients.swap(0, 1);
    let cut = tokio::spawn(async move {
        let time = Duration::from_secs(5);
        super::persistently(&mut clients, "demo", &request("sim-slow-2500"), time, 5).await
    });
    staying.attempted(1).await;
    ending.running.signal("TERM");
    let super::Persisted { answer, attempts, .. } = cut.await.unwrap();
    let status = answer.unwrap_err();
    let participants = staying.journal.participant_count();
    row(
        "no library repeats a call without a token that the drain cuts off",
        "drain_timeout runs out under a call without a token, under a policy of five attempts",
        format!(
            "{:?} {} {}: {attempts} attempt, {participants} participant",
            status.code(),
            seen(&status).reason,
            pushback(&status).unwrap()
        ),
    );
    assert_eq!(seen(&status), (Code::Internal, "SHUTTING_DOWN"));
    assert_eq!((pushback(&status), attempts, participants), (Some(-1), 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_file_descriptors_neither_spins_nor_stays_deaf() {
    // Room for a few dozen connections beside what the program itself holds open.
    let mut command = std::process::Command::new("prlimit");
    command.arg("--nofile=64:64").arg(program().get_program());
    let gateway = gateway().serve_by(command, &[]).await;
    gateway.call(request("contact-1")).await.unwrap();
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(tokio::net::TcpStream::connect(gateway.addr).await.unwrap());
    }
    let stat = format!("/proc/{}/stat", gateway.running.pid());
    // The fields behind the name, which may hold spaces: user and system time are the 12th and
    // 13th of them, in ticks of 10 ms (proc(5)).
    let ticks = || {
        let text = std::fs::read_to_string(&stat).unwrap();
        let fields = text.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
        fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    };
    let before = ticks();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = Duration::from_millis(10 * (ticks() - before));
    drop(crowd);
    let freed = Instant::now();
    until("it takes calls again", async || gateway.call(request("contact-1")).await.is_ok()).await;
    let again = freed.elapsed();
    row(
        "a gateway without file descriptors neither spins nor stays deaf",
        "100 connections to a gateway with 64 file descriptors, for 2 s",
        format!("{spent:.1?} of CPU; a call is OK {again:.1?} after they have gone"),
    );
    // An accept loop that spins would take all of the 2 s.
    assert!(spent < Duration::from_millis(700), "{spent:?}");
    assert!(again < Duration::from_secs(5), "{again:?}");
}
