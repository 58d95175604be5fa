//! docs/debugging.md: every command that it shows is run, and prints what it shows.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use crate::support::gateway;
use crate::support::process::tool;
use crate::support::redis::RedisServer;

/// A block of shell, with the lines of its output that the page shows.
struct Block {
    shell: String,
    shown: Vec<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let body: Vec<_> =
            lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
        match language {
            "sh" => blocks.push(Block { shell: body.join("\n"), shown: Vec::new() }),
            "text" => blocks.last_mut().unwrap().shown = body,
            other => panic!("a block of {other:?} is run by nobody"),
        }
    }
    blocks
}

/// Whether the line is of the form that the page shows: `…` stands for anything.
fn fits(line: &str, shown: &str) -> bool {
    let mut parts = shown.split('…');
    let first = parts.next().unwrap();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut ends_open = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        ends_open = part.is_empty();
    }
    rest.is_empty() || ends_open
}

/// The request ids and tokens of the page's calls.
fn names(shell: &str) -> BTreeSet<&str> {
    let words = shell.split(|c: char| !c.is_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with("night-")).collect()
}

#[tokio::test]
async fn every_command_of_the_page_prints_what_the_page_shows() {
    let Some(_) = tool("grpcurl") else { return };
    let server = RedisServer::start().await;
    let plan = gateway().on_redis(&server.url(), "pg").patient();
    let tenant = json!({ "instances": ["*"], "rate": "20/s", "burst": 40, "committed": "1/s",
        "max_in_flight": 64 });
    let other = json!({ "instances": ["*"], "rate": "5/s", "burst": 10 });
    let plan = plan.with("/tenants", json!({ "demo": tenant, "globex": other }));
    let plan = plan.with("/upstreams/main/rate", "2/s").with("/upstreams/main/burst", 5);
    let plan = plan
        .with("/upstreams/main/max_attempts", 1)
        .with("/telemetry/log/level", "debug");
    let mut gateway = plan.serve().await;

    let folder = tempfile::TempDir::new().unwrap();
    let log = folder.path().join("gateway.log");
    let page = include_str!("../../docs/debugging.md");
    let blocks = blocks(page);
    assert!(blocks.len() >= 15, "{} blocks", blocks.len());
    for Block { shell, shown } in blocks {
        assert!(!shown.is_empty(), "no output is shown of {shell}");
        if shell.contains("$LOG") {
            for name in names(&shell) {
                gateway.running.line_with(&format!("{name}\",\"peer")).await;
            }
            std::fs::write(&log, gateway.running.seen().join("\n")).unwrap();
        }
        let printed = run(&shell, &gateway, &log).await;
        for wanted in shown {
            let found = printed.lines().any(|line| fits(line, &wanted));
            assert!(found, "{shell}\n\nprints no line {wanted:?}:\n{printed}");
        }
    }
}

/// What the block prints, on both streams. It may fail where it shows an error.
async fn run(shell: &str, gateway: &crate::support::gateway::Child, log: &Path) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_participant-gateway")).parent().unwrap();
    let mut bash = tool("bash").unwrap();
    let path = format!("{}:{}", program.display(), path_of(&bash));
    bash.args(["-c", &format!("exec 2>&1\n{shell}")])
        .env("PATH", path)
        .env("GATEWAY", gateway.addr.to_string())
        .env("ADMIN", gateway.admin.to_string())
        .env("WHO", "x-tenant-id: demo")
        .env("CONFIG", gateway.config())
        .env("LOG", log);
    let output = tokio::task::spawn_blocking(move || bash.output().unwrap()).await.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn path_of(command: &std::process::Command) -> String {
    let path = command.get_envs().find(|(name, _)| *name == "PATH");
    path.and_then(|(_, value)| value).unwrap().to_string_lossy().into_owned()
}
