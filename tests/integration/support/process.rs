//! The program itself, as a child process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use tempfile::NamedTempFile;

use super::set;

const PATIENCE: Duration = Duration::from_secs(20);

/// The program, not started.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_participant-gateway"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["AWS_", "OTEL_", "PARTICIPANT_GATEWAY__"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

/// Where `make tools` puts the tools.
pub fn tools() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tools/bin")
}

/// A shell line with the tools on its path.
pub fn shell(line: &str) -> Output {
    let path = format!("{}:{}", tools().display(), std::env::var("PATH").unwrap());
    Command::new("sh").args(["-c", line]).env("PATH", path).output().unwrap()
}

/// What a program printed, both streams.
pub fn printed(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The program while it runs; it ends with the test.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (sender, lines) = channel();
        let output = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// The first line that holds the text, seen or yet to come.
    pub fn line_with(&mut self, text: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        self.next_with(text)
    }

    /// The next line that holds the text.
    pub fn next_with(&mut self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no line with {text:?} in {:#?}", self.seen));
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// All lines so far.
    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for the end: the exit code, and all that was printed.
    pub fn end(mut self) -> (Option<i32>, Vec<String>) {
        let status = self.child.wait().unwrap();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.seen.push(line);
        }
        (status.code(), std::mem::take(&mut self.seen))
    }
}

/// `serve` while it runs, with where it listens.
pub struct Serving {
    pub running: Running,
    pub addr: SocketAddr,
    _config: NamedTempFile,
}

/// Serves by this config, on ports that the system picks, in this environment besides.
pub fn serve(mut config: Value, environment: &[(&str, &str)]) -> Serving {
    for section in ["server", "admin"] {
        set(&mut config, &format!("/{section}/listen"), "127.0.0.1:0".into());
    }
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config.to_string()).unwrap();
    let mut command = program();
    command
        .args(["serve", "--config"])
        .arg(file.path())
        .envs(environment.iter().copied());
    let mut running = Running::start(command);
    let ready: Value = serde_json::from_str(&running.line_with("\"ready\"")).unwrap();
    let addr = ready["address"].as_str().unwrap().parse().unwrap();
    Serving { running, addr, _config: file }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
