//! The program's commands and exit codes.

use std::io::Write;

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::support::gateway::client;
use crate::support::process::{Running, printed, program, run, serve};
use crate::support::{gateway, of, request};

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn check(text: &str) -> (Option<i32>, String) {
    let config = file(text);
    let output = run(&["check", "--config", config.path().to_str().unwrap()]);
    (output.status.code(), printed(&output))
}

const GOOD: &str = "
identity: { mode: header }
tenants:
  acme: { instances: ['*'], rate: 20/s, burst: 40 }
upstreams:
  main: { region: us-east-1, instances: ['*'] }
";

#[test]
fn help_and_version_are_on_every_command() {
    assert!(printed(&run(&["--version"])).starts_with("participant-gateway "));
    for command in ["dev", "serve", "check", "levels", "record", "schema", "simulate", "keygen"] {
        let output = run(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(printed(&output).contains("Usage:"), "{command}");
        assert_eq!(run(&[command, "--version"]).status.code(), Some(0), "{command}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_64() {
    for arguments in
        [&["serv"][..], &["serve"], &["check", "--confg", "x"], &[], &["simulate", "--rate", "2"]]
    {
        assert_eq!(run(arguments).status.code(), Some(64), "{arguments:?}");
    }
}

#[test]
fn a_number_of_threads_that_is_none_ends_with_64() {
    for (said, code) in [("0", 64), ("256", 64), ("two", 64), ("", 78), ("1", 78), ("2", 78)] {
        let mut program = program();
        program.env("TOKIO_WORKER_THREADS", said);
        let output = program.args(["serve", "--config", "/nowhere"]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{said:?}: {}", printed(&output));
        assert_eq!(printed(&output).contains("TOKIO_WORKER_THREADS"), code == 64, "{said:?}");
    }
}

#[test]
fn a_good_config_is_valid_and_a_missing_one_is_named() {
    assert_eq!(check(GOOD).0, Some(0));
    let output = run(&["check", "--config", "/nowhere/config.yaml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(printed(&output).contains("/nowhere/config.yaml"));
}

#[test]
fn every_mistake_of_a_config_is_named_at_once_and_ends_with_78() {
    let (code, text) = check(
        "
server: { listen: everywhere, default_timeout: 10 }
identity: { mode: heder }
tenants:
  acme: { instances: ['*'], rate: 20, burst: 0, colour: red }
upstreams:
  main: { region: us-east-1, instances: ['*'], max_wait: soon }
",
    );
    assert_eq!(code, Some(78));
    for (path, value) in [
        ("server.listen", "\"everywhere\""),
        ("server.default_timeout", "10"),
        ("identity.mode", "\"heder\""),
        ("tenants.acme.rate", "20"),
        ("tenants.acme.burst", "0"),
        ("tenants.acme.colour", "\"red\""),
        ("upstreams.main.max_wait", "\"soon\""),
    ] {
        let line = text.lines().find(|line| line.starts_with(&format!("{path}: ")));
        let line = line.unwrap_or_else(|| panic!("{path} is not named in\n{text}"));
        assert!(line.contains(value) && line.contains("expected"), "{line}");
    }
    assert_eq!(text.lines().count(), 7, "{text}");
}

#[test]
fn serve_refuses_a_broken_config_with_the_same_words() {
    let config = file("identity: { mode: header }\n");
    let path = config.path().to_str().unwrap();
    let (serve, check) = (run(&["serve", "--config", path]), run(&["check", "--config", path]));
    assert_eq!(serve.status.code(), Some(78));
    assert_eq!(printed(&serve), printed(&check));
}

#[test]
fn an_address_that_is_taken_ends_with_70_and_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = run(&["dev", "--listen", &addr, "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(70));
    assert!(printed(&output).contains(&addr), "{}", printed(&output));
}

#[test]
fn the_schema_is_json_and_knows_every_section() {
    let output = run(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    for section in
        ["server", "admin", "identity", "tenants", "upstreams", "store", "idempotency", "telemetry"]
    {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
    assert_eq!(schema["additionalProperties"], false);
}

#[tokio::test]
async fn sigterm_and_sigint_end_the_program_with_0() {
    for signal in ["TERM", "INT"] {
        let mut dev = program();
        dev.args(["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        let mut dev = Running::start(dev);
        dev.line_with("ready").await;
        dev.signal(signal);
        assert_eq!(dev.end().await.0, Some(0), "{signal}");
    }
}

#[tokio::test]
async fn the_simulator_prints_lines_for_a_shell() {
    let mut simulate = program();
    simulate.args([
        "simulate",
        "--listen",
        "127.0.0.1:0",
        "--rate",
        "2/s",
        "--burst",
        "5",
        "--latency",
        "1ms",
    ]);
    let mut simulate = Running::start(simulate);
    simulate.line_with("AWS_ENDPOINT_URL_CONNECT").await;
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        let value = exported(&mut simulate, name).await;
        assert!(!value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric()), "{value}");
    }
    let url = exported(&mut simulate, "AWS_ENDPOINT_URL_CONNECT").await;
    assert!(url.starts_with("http://127."), "{url}");
    simulate.signal("TERM");
    assert_eq!(simulate.end().await.0, Some(0));
}

#[tokio::test]
async fn a_gateway_in_the_simulators_environment_calls_the_simulator() {
    let mut simulate = program();
    simulate.args(["simulate", "--listen", "127.0.0.1:0"]);
    let mut simulate = Running::start(simulate);
    let mut environment = Vec::new();
    for name in ["AWS_ENDPOINT_URL_CONNECT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        environment.push((name, exported(&mut simulate, name).await));
    }
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let config = NamedTempFile::new().unwrap();
    gateway().write(config.path());
    let serving = serve(config.path(), &environment).await;
    let mut client = client(serving.addr).await;
    client.create_participant(of("demo", request("contact-1"))).await.unwrap();
}

/// The value of the line `export NAME=VALUE`.
async fn exported(simulate: &mut Running, name: &str) -> String {
    let line = simulate.line_with(&format!("export {name}=")).await;
    line.split_once('=').unwrap().1.to_owned()
}
