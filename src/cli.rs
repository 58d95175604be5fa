//! The commands.

mod dev;
mod levels;
mod record;
mod table;

use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use participant_gateway::admission;
use participant_gateway::app::{self, App, OperatorError, Plan, Reloading};
use participant_gateway::config::{self, Problems, Settings};
use participant_gateway::egress::Named;
use participant_gateway::telemetry;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// A gRPC gateway to Amazon Connect's CreateParticipant.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    about,
    after_help = "Exit codes: 0, 64 usage, 70 own failure, 78 config."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve with nothing installed: simulated Amazon Connect, one tenant named demo
    #[cfg(feature = "simulator")]
    Dev(dev::Dev),
    /// Serve
    Serve(ConfigFile),
    /// Show every problem of a config; start nothing
    Check(ConfigFile),
    /// Print the config's JSON Schema
    Schema,
    /// Print a fresh key line (base64, 32 random bytes) for either file of `idempotency`
    Keygen,
    /// Print what the store holds now: levels, shares, calls in flight, budgets and queues
    Levels(levels::LevelsOf),
    /// Print the state of a call, or forget it
    Record(record::RecordOf),
    /// Serve the simulated Amazon Connect by itself
    #[cfg(feature = "simulator")]
    Simulate(dev::Simulate),
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The config, YAML
    #[arg(long = "config", value_name = "FILE")]
    file: PathBuf,
}

/// Why the process ends with a code other than 0.
#[derive(Debug)]
pub enum Failure {
    /// The config has problems.
    Config(Problems),
    /// The command line asks for something impossible.
    Usage(String),
    /// A failure of the program itself.
    Own(io::Error),
}

impl Failure {
    /// The process's exit code.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => CONFIG,
            Self::Usage(_) => USAGE,
            Self::Own(_) => SOFTWARE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => problems.fmt(f),
            Self::Usage(text) => text.fmt(f),
            Self::Own(error) => error.fmt(f),
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Own(error)
    }
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Config(problems) => Self::Config(problems),
            OperatorError::UnknownName(text) => Self::Usage(text),
            OperatorError::SetUp(error) => Self::Own(error),
            OperatorError::Store(_) => Self::Own(io::Error::other(error)),
        }
    }
}

impl Cli {
    /// Runs the command until it is done or a signal ends it.
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            #[cfg(feature = "simulator")]
            Command::Dev(dev) => block_on(dev.run()),
            Command::Serve(ConfigFile { file }) => block_on(serve(file)),
            Command::Check(ConfigFile { file }) => {
                let settings = Settings::load(&file, app::examine)?;
                for bad in telemetry::Directives::from_env().bad() {
                    eprintln!("warning: {bad}");
                }
                for warning in &settings.warnings {
                    eprintln!("warning: {warning}");
                }
                for Named { variable, proxy } in settings.egress.proxies() {
                    eprintln!("note: {variable}: requests leave through {proxy}");
                }
                print(format_args!("{} is valid", file.display()))
            }
            Command::Levels(levels) => block_on(levels.run()),
            Command::Record(record) => block_on(record.run()),
            Command::Schema => print(format_args!("{:#}", config::json_schema())),
            Command::Keygen => {
                let key = admission::keygen().map_err(io::Error::other)?;
                print(&*key)
            }
            #[cfg(feature = "simulator")]
            Command::Simulate(simulate) => block_on(simulate.run()),
        }
    }
}

/// The config of a command that asks the store. Its answer goes to standard output, and the log to
/// standard error. The store needs no certificates of the gRPC port.
fn store_settings(file: &Path) -> Result<Settings, Failure> {
    let settings = Settings::load(file, |_| Vec::new())?;
    let log = &settings.telemetry.log;
    let _ = telemetry::init_on_stderr(log.format, log.level);
    Ok(settings)
}

async fn serve(file: PathBuf) -> Result<(), Failure> {
    // Comes first: an early signal must not kill the process.
    let (shutdown, hangup) = (shutdown()?, signal(SignalKind::hangup())?);
    let settings = Settings::load(&file, app::examine)?;
    let log = &settings.telemetry.log;
    let log_level = telemetry::init(log.format, log.level);
    for warning in &settings.warnings {
        tracing::warn!(%warning, "config");
    }
    for Named { variable, proxy } in settings.egress.proxies() {
        tracing::info!(variable, proxy, "requests leave through a proxy");
    }
    raise_descriptor_limit();
    let reload = Some(Reloading { file, hangup });
    let app = App::bind(Plan { settings, reload, credentials: None, log_level }).await?;
    Ok(app.run(shutdown).await?)
}

/// Raises the limit of file descriptors. The usual soft limit is 1,024: too few for the
/// connections. The hard limit is the operator's decision.
fn raise_descriptor_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit >= ENOUGH_DESCRIPTORS => {}
        Ok(limit) => tracing::warn!(limit, expected = ENOUGH_DESCRIPTORS, "few file descriptors"),
        Err(error) => tracing::warn!(%error, "the limit of file descriptors cannot be raised"),
    }
}

/// Prints to standard output. A closed pipe is not a failure.
fn print(text: impl fmt::Display) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let workers = workers()?;
    // A single worker is this thread. It takes tasks in turn, so that the answers of one round
    // leave in one write. A worker must never wait for a thread that waits for it.
    let runtime = match workers {
        1 => Builder::new_current_thread().enable_all().build()?,
        _ => Builder::new_multi_thread().worker_threads(workers).enable_all().build()?,
    };
    let outcome = runtime.block_on(command);
    // A lookup in the system's resolver cannot be cancelled, and must not delay the exit.
    runtime.shutdown_background();
    outcome
}

/// The threads that serve: one per CPU, or as many as tokio's own variable says.
fn workers() -> Result<usize, Failure> {
    let Some(said) = std::env::var_os(WORKERS).filter(|said| !said.is_empty()) else {
        return Ok(std::thread::available_parallelism().map_or(1, usize::from));
    };
    let number = said.to_str().and_then(|said| said.parse::<NonZero<u8>>().ok());
    let number =
        number.ok_or_else(|| Failure::Usage(format!("{WORKERS} is no number of 1 to 255")));
    number.map(|number| usize::from(number.get()))
}

/// Resolves at the first SIGTERM or SIGINT. It listens from now on, and not only when it is
/// awaited.
fn shutdown() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The command line was not understood (sysexits.h, EX_USAGE).
pub const USAGE: u8 = 64;

/// A failure of the program itself (EX_SOFTWARE).
const SOFTWARE: u8 = 70;

/// The config has problems (EX_CONFIG).
const CONFIG: u8 = 78;

/// The number of threads that serve: the variable of tokio's own runtime.
const WORKERS: &str = "TOKIO_WORKER_THREADS";

/// Enough for 4,096 connections of callers, as many to Connect, and other open files.
const ENOUGH_DESCRIPTORS: u64 = 8_448;
