//! No file descriptors are left: the gateway does not spin, serves the connections that it has, and
//! recovers.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::support::gateway::Child;
use crate::support::process::program_with_descriptors;
use crate::support::{gateway, of, request, until_within};

#[tokio::test]
async fn without_descriptors_nothing_spins_and_all_recovers_once_there_are_some_again() {
    let mut gateway = gateway().serve_by(program_with_descriptors(64), &[]).await;
    let mut client = gateway.client().await;
    let mut call = async || client.create_participant(of("demo", request("contact-1"))).await;
    // From now on there is a connection to Connect.
    call().await.unwrap();

    // The kernel completes a connection also where the gateway cannot accept it.
    let mut taken = vec![TcpStream::connect(gateway.admin).await.unwrap()];
    for _ in 0..100 {
        taken.push(TcpStream::connect(gateway.addr).await.unwrap());
    }
    gateway.running.next_with("cannot accept connections").await;
    assert!(gateway.running.open_descriptors() >= 60, "another reason");

    let (begun, used) = (Instant::now(), gateway.running.cpu_time());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (used, took) = (gateway.running.cpu_time() - used, begun.elapsed());
    assert!(used < took / 4, "{used:?} of a core's time in {took:?}");
    let lines = failures_to_accept(&mut gateway);
    assert!((2..=40).contains(&lines), "{lines} lines in the log");
    for _ in 0..10 {
        call().await.expect("a connection that was there before is not served");
    }

    drop(taken);
    until_within(Duration::from_secs(2), "descriptors are back", async || {
        gateway.running.open_descriptors() < 40
    })
    .await;
    gateway.call(request("contact-1")).await.unwrap();
    assert_eq!(gateway.admin("/livez").await.0, 200);
    let lines = failures_to_accept(&mut gateway);
    call().await.unwrap();
    assert_eq!(failures_to_accept(&mut gateway), lines);
}

fn failures_to_accept(gateway: &mut Child) -> usize {
    let lines = gateway.running.seen().iter();
    lines.filter(|line| line.contains("cannot accept connections")).count()
}
