//! The program itself, as a child process.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use super::{PATIENCE, until};

/// The program, not started.
pub fn program() -> Command {
    unconfigured(Command::new(PROGRAM))
}

/// The program, which may open only so many files and sockets; its arguments follow.
pub fn program_with_descriptors(most: u32) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\""), PROGRAM]);
    unconfigured(shell)
}

/// The program on one of the CPUs that the tests may use; its arguments follow.
pub fn program_on_one_cpu() -> Command {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let first = allowed.trim().split(['-', ',']).next().unwrap();
    let mut taskset = Command::new("taskset");
    taskset.args(["--cpu-list", first, PROGRAM]);
    unconfigured(taskset)
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_participant-gateway");

/// Without what the environment of the tests says to the program.
fn unconfigured(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["AWS_", "OTEL_", "PARTICIPANT_GATEWAY__", "RUST_LOG"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || name.to_lowercase().ends_with("_proxy")
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

/// A program that `make tools` installs, with the other tools on its path. Where it is missing, this
/// fails, or returns nothing with `ALLOW_MISSING_TOOLS=1`: the test is then to be skipped.
pub fn tool(name: &str) -> Option<Command> {
    let path = format!("{}:{}", tools().display(), std::env::var("PATH").unwrap());
    if let Some(program) = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.exists())
    {
        let mut command = Command::new(program);
        command.env("PATH", path);
        return Some(command);
    }
    assert!(
        std::env::var("ALLOW_MISSING_TOOLS").is_ok_and(|allowed| allowed == "1"),
        "there is no {name}: `make tools` installs it, ALLOW_MISSING_TOOLS=1 skips its tests"
    );
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    // The harness does not show what a passing test prints with `eprintln!`.
    let _ = writeln!(std::io::stderr(), "SKIPPED, as there is no {name}: {test}");
    None
}

/// A shell line with the tools on its path.
pub fn shell(line: &str) -> Output {
    let mut shell = tool("sh").expect("a shell");
    shell.args(["-c", line]).output().unwrap()
}

/// Where `make tools` puts the tools.
fn tools() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tools/bin")
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
    lines: UnboundedReceiver<String>,
    seen: Vec<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (sender, lines) = unbounded_channel();
        let output = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// The first line that holds the text, seen or yet to come.
    pub async fn line_with(&mut self, text: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        self.next_with(text).await
    }

    /// The next line that holds the text.
    pub async fn next_with(&mut self, text: &str) -> String {
        loop {
            let Ok(Some(line)) = timeout(PATIENCE, self.lines.recv()).await else {
                panic!("no line with {text:?} in {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// All lines so far.
    pub fn seen(&mut self) -> &[String] {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.push(line);
        }
        &self.seen
    }

    /// All lines that were not taken yet; they are kept here no longer.
    pub fn take(&mut self) -> Vec<String> {
        self.seen();
        std::mem::take(&mut self.seen)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The memory that it holds, in MiB.
    pub fn resident_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// How many files and sockets it has open.
    pub fn open_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// The time that it has spent on a processor.
    pub fn cpu_time(&self) -> Duration {
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // After the name, which may hold spaces: state is the third field, utime the 14th.
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
        let ticks: f64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum();
        Duration::from_secs_f64(ticks / TICKS_PER_SECOND)
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for the end: the exit code, and all that was printed.
    pub async fn end(mut self) -> (Option<i32>, Vec<String>) {
        while let Ok(Some(line)) = timeout(PATIENCE, self.lines.recv()).await {
            self.seen.push(line);
        }
        let mut status = None;
        until("the program has ended", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        (status.unwrap().code(), std::mem::take(&mut self.seen))
    }
}

/// `serve` while it runs, with where it listens.
pub struct Serving {
    pub running: Running,
    pub addr: SocketAddr,
    pub admin: SocketAddr,
}

/// Serves by this file, in this environment besides.
pub async fn serve(config: &Path, environment: &[(&str, &str)]) -> Serving {
    serve_by(program(), config, environment).await
}

/// The same, by a command that starts the program with the arguments that follow.
pub async fn serve_by(
    mut command: Command,
    config: &Path,
    environment: &[(&str, &str)],
) -> Serving {
    command
        .args(["serve", "--config"])
        .arg(config)
        .envs(environment.iter().copied());
    let mut running = Running::start(command);
    let ready: Value = serde_json::from_str(&running.line_with("\"ready\"").await).unwrap();
    let address = |name: &str| ready[name].as_str().unwrap().parse().unwrap();
    Serving { addr: address("address"), admin: address("admin_address"), running }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
