//! `record --forget`: in each state, and against a call in flight.

use std::io::Write;
use std::process::Stdio;

use participant_gateway::proto::CreateParticipantRequest;
use serde_json::Value;

use super::{command, json, of_record, secretive, serving};
use crate::support::gateway::Child;
use crate::support::process::{printed, tool};
use crate::support::{of, until};

async fn state(gateway: &Child, token: &str) -> String {
    json(gateway.config(), &of_record(token)).await["state"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn forget(gateway: &Child, token: &str) -> (Option<i32>, Value, String) {
    let arguments = [&of_record(token)[..], &["--forget", "--yes", "--json"]].concat();
    let output = command(gateway.config(), &arguments).await;
    let shown = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), shown, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn begin(gateway: &Child, request: CreateParticipantRequest) -> tokio::task::JoinHandle<String> {
    let addr = gateway.addr;
    tokio::spawn(async move {
        let mut client = crate::support::gateway::client(addr).await;
        let answer = client.create_participant(of("demo", request)).await.unwrap();
        answer.into_inner().participant_id
    })
}

#[tokio::test]
async fn a_finished_an_uncertain_and_an_expired_record_are_forgotten_and_the_log_says_so() {
    let (gateway, _server, _) = serving(|plan| plan).await;
    let call = async |contact: &str| gateway.call(secretive(contact, contact)).await;
    call("canary-contact").await.unwrap();
    call("sim-internal").await.unwrap_err();
    call("sim-expires-1000").await.unwrap();
    for (token, was) in
        [("canary-contact", "done"), ("sim-internal", "uncertain"), ("sim-expires-1000", "expired")]
    {
        let (code, shown, log) = forget(&gateway, token).await;
        assert_eq!(
            (code, &shown["forgotten"], &shown["state"]),
            (Some(0), &true.into(), &was.into())
        );
        let line: Value = serde_json::from_str(log.trim()).unwrap();
        for (field, value) in [
            ("message", "record forgotten"),
            ("tenant", "demo"),
            ("upstream", "main"),
            ("state", was),
            ("record", shown["record"].as_str().unwrap()),
        ] {
            assert_eq!(line[field], value, "{line}");
        }
        assert!(!log.contains("canary") && !shown.to_string().contains("canary"));
        assert_eq!(state(&gateway, token).await, "absent");
    }
    let again = call("canary-contact").await.unwrap().into_inner();
    assert!(!again.replayed, "the token is used anew");
    let (code, shown, log) = forget(&gateway, "never-used").await;
    assert_eq!((code, &shown["forgotten"], log.as_str()), (Some(0), &false.into(), ""));
}

#[tokio::test]
async fn a_record_in_flight_is_never_forgotten() {
    let (gateway, _server, _) = serving(|plan| plan).await;
    let call = begin(&gateway, secretive("sim-slow-2500", "slow"));
    until("the call is in flight", async || state(&gateway, "slow").await == "in_flight").await;
    let (code, shown, log) = forget(&gateway, "slow").await;
    assert_eq!((code, shown), (Some(70), Value::Null));
    assert!(log.contains("in flight until"), "{log}");
    let participant = call.await.unwrap();
    let done = json(gateway.config(), &of_record("slow")).await;
    assert_eq!(done["participant_id"], participant.as_str());
}

/// Whatever the order, no call loses its answer, and no second participant is made.
#[tokio::test]
async fn forgetting_races_with_calls_and_makes_no_second_participant() {
    let (gateway, _server, _) = serving(|plan| plan).await;
    let mut forgotten = 0;
    for round in 0..4 {
        let token = format!("token-{round}");
        let calls: Vec<_> =
            (0..3).map(|_| begin(&gateway, secretive("sim-slow-300", &token))).collect();
        while !calls.iter().all(tokio::task::JoinHandle::is_finished) {
            let (code, shown, _) = forget(&gateway, &token).await;
            forgotten += u32::from(shown["forgotten"] == true);
            assert!(matches!(code, Some(0 | 70)), "{shown}");
        }
        let mut participants = Vec::new();
        for call in calls {
            participants.push(call.await.unwrap());
        }
        participants.push(
            gateway
                .call(secretive("sim-slow-300", &token))
                .await
                .unwrap()
                .into_inner()
                .participant_id,
        );
        participants.dedup();
        assert_eq!(participants.len(), 1, "round {round}");
        forgotten += u32::from(forget(&gateway, &token).await.1["forgotten"] == true);
    }
    assert!(forgotten >= 4, "{forgotten}");
    assert_eq!(gateway.journal.participants().len(), 4);
}

#[tokio::test]
async fn without_a_terminal_and_without_yes_nothing_is_asked_and_nothing_forgotten() {
    let (gateway, _server, _) = serving(|plan| plan).await;
    gateway.call(secretive("contact", "token")).await.unwrap();
    let arguments = [&of_record("token")[..], &["--forget"]].concat();
    let output = command(gateway.config(), &arguments).await;
    assert_eq!(output.status.code(), Some(64));
    assert!(printed(&output).contains("--yes"), "{}", printed(&output));
    assert_eq!(state(&gateway, "token").await, "done");
}

#[tokio::test]
async fn on_a_terminal_a_person_decides() {
    let (gateway, _server, _) = serving(|plan| plan).await;
    gateway.call(secretive("contact", "token")).await.unwrap();
    let Some(_) = tool("script") else { return };
    for (answer, code, then) in [("n\n", 70, "done"), ("y\n", 0, "absent")] {
        let program = env!("CARGO_BIN_EXE_participant-gateway");
        let line = format!(
            "{program} record --config {} --tenant demo --upstream main --client-token token --forget",
            gateway.config().display()
        );
        // It gives the program a terminal.
        let mut script = tool("script").unwrap();
        script
            .args(["-qec", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut script = script.spawn().unwrap();
        script.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let output = tokio::task::spawn_blocking(|| script.wait_with_output().unwrap())
            .await
            .unwrap();
        let shown = printed(&output);
        assert_eq!(output.status.code(), Some(code), "{shown}");
        assert!(shown.contains("Forget this record?") && shown.contains("done"), "{shown}");
        assert_eq!(state(&gateway, "token").await, then);
    }
}
