//! One connection to Redis, which is replaced after it has failed.
//!
//! It differs from redis-rs's connection manager in three ways. Every wait ends within the timeout,
//! also while connecting. A connection with two late answers in a row is replaced, since only that
//! reveals a half-open socket. A dial goes on after its callers have left; otherwise a slow network
//! would never connect.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use super::super::{ServerWord, StoreError};
use super::dial::{Dialer, Wire};
use crate::error::{Cause, Source, chain};
use crate::sync::lock;

/// A connection, the number of late answers in a row, and for a cluster the number of all late
/// answers.
struct Live {
    wire: Wire,
    late: AtomicU32,
}

type Dialled = Option<Result<Arc<Live>, Arc<str>>>;

/// The connection to Redis, which outlives any single socket.
pub(super) struct Link(Arc<Inner>);

struct Inner {
    dialer: Dialer,
    live: ArcSwapOption<Live>,
    /// The dial that runs, for all callers that wait for it.
    dialling: Mutex<Option<watch::Receiver<Dialled>>>,
    /// The last cause in the log since the last answer to a command.
    told: Mutex<String>,
    has_told: AtomicBool,
}

impl Link {
    pub(crate) fn new(dialer: Dialer) -> Self {
        Self(Arc::new(Inner {
            dialer,
            live: ArcSwapOption::empty(),
            dialling: Mutex::default(),
            told: Mutex::default(),
            has_told: AtomicBool::new(false),
        }))
    }

    /// Sends the command that `command` makes for each try. Its answer comes within the timeout.
    ///
    /// A broken connection is replaced, and the command is sent once more. A command may therefore
    /// run twice. A dropped future does not take its command back.
    pub(crate) async fn send(
        &self,
        command: &Cmd,
        on_no_script: impl FnOnce() -> Cmd,
    ) -> Result<Value, StoreError> {
        let limit = self.0.dialer.settings().timeout;
        let mut used = None;
        match timeout(limit, self.0.exchange(command, on_no_script, &mut used)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                if let Some(live) = used
                    && live.late.fetch_add(1, Ordering::Relaxed) + 1 >= LATE_ANSWERS
                {
                    self.0.give_up(&live);
                }
                Err(StoreError::TimedOut)
            }
        }
    }
}

impl Inner {
    async fn exchange(
        self: &Arc<Self>,
        command: &Cmd,
        on_no_script: impl FnOnce() -> Cmd,
        used: &mut Option<Arc<Live>>,
    ) -> Result<Value, StoreError> {
        let mut replaced = false;
        let mut script = None;
        let mut on_no_script = Some(on_no_script);
        loop {
            let live = self.live().await?;
            *used = Some(Arc::clone(&live));
            let answer = live.wire.clone().send(script.as_ref().unwrap_or(command)).await;
            if !self.dialer.has_many_nodes() {
                live.late.store(0, Ordering::Relaxed);
            }
            let error = match answer.and_then(Value::extract_error) {
                Ok(value) => {
                    self.is_well();
                    return Ok(value);
                }
                Err(error) => error,
            };
            if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
                && let Some(load) = on_no_script.take()
            {
                script = Some(load());
                continue;
            }
            if spoils_connection(&error) {
                self.tell(&error.to_string(), "redis connection of no use");
                self.drop_live(&live);
                if !replaced {
                    replaced = true;
                    continue;
                }
            }
            return Err(self.store_error(error));
        }
    }

    async fn live(self: &Arc<Self>) -> Result<Arc<Live>, StoreError> {
        if let Some(live) = self.live.load_full() {
            return Ok(live);
        }
        let mut dialled = self.dial();
        let outcome = match dialled.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        match outcome {
            Some(Ok(live)) => Ok(live),
            Some(Err(why)) => Err(StoreError::NotConnected(source(&why))),
            None => Err(StoreError::NotConnected(source("the dial broke off"))),
        }
    }

    /// Joins the dial that runs, or starts one. The dial does not depend on its callers.
    fn dial(self: &Arc<Self>) -> watch::Receiver<Dialled> {
        let mut dialling = lock(&self.dialling);
        if let Some(dialled) = dialling.as_ref()
            && dialled.has_changed().is_ok()
        {
            return dialled.clone();
        }
        let (tell, dialled) = watch::channel(None);
        *dialling = Some(dialled.clone());
        let inner = Arc::clone(self);
        let dial = async move {
            let started = Instant::now();
            tracing::debug!("connecting to redis");
            let outcome: Result<Arc<Live>, Arc<str>> =
                match timeout(inner.dialer.patience(), inner.dialer.dial()).await {
                    Ok(Ok(wire)) => Ok(Arc::new(Live { wire, late: AtomicU32::new(0) })),
                    Ok(Err(error)) => Err(chain(error.as_ref()).into()),
                    Err(_) => Err("timed out while connecting".into()),
                };
            match &outcome {
                Ok(live) => {
                    let duration = started.elapsed().as_secs_f64();
                    tracing::debug!(duration, "connected to redis");
                    inner.live.store(Some(Arc::clone(live)));
                }
                Err(error) => inner.tell(error, "cannot connect to redis"),
            }
            // No caller may join an ended dial: its connection may have failed since.
            *lock(&inner.dialling) = None;
            let _ = tell.send(Some(outcome));
        };
        tokio::spawn(dial.in_current_span());
        dialled
    }

    fn store_error(&self, error: RedisError) -> StoreError {
        match word(&error) {
            Some("TRYAGAIN") => StoreError::Moving,
            // redis-rs gave up following ASK and MOVED redirections: the slot is being moved.
            Some("ASK" | "MOVED") if self.dialer.has_many_nodes() => StoreError::Moving,
            Some(word) => {
                StoreError::Server { word: ServerWord::of(word), source: Arc::new(error) }
            }
            None => StoreError::Broken(Arc::new(error)),
        }
    }

    /// Replaces a silent connection.
    fn give_up(self: &Arc<Self>, silent: &Arc<Live>) {
        if self.dialer.has_many_nodes() {
            // Most of a cluster may be well: the old connection serves until the new one is ready.
            tracing::warn!("a node of the redis cluster is silent, connecting anew");
            drop(self.dial());
        } else {
            self.tell("late answers", "redis connection of no use");
            self.drop_live(silent);
        }
    }

    fn drop_live(&self, spoilt: &Arc<Live>) {
        self.live.compare_and_swap(spoilt, None);
    }

    /// Forgets the last cause, so that the same cause is logged again.
    fn is_well(&self) {
        if self.has_told.load(Ordering::Relaxed) && self.has_told.swap(false, Ordering::Relaxed) {
            lock(&self.told).clear();
        }
    }

    /// Logs a cause once, and again only after another cause: an outage repeats the same cause
    /// every second.
    fn tell(&self, why: &str, what: &'static str) {
        let mut told = lock(&self.told);
        if *told != why {
            why.clone_into(&mut told);
            self.has_told.store(true, Ordering::Relaxed);
            tracing::warn!(why, what, "redis");
        }
    }
}

fn source(why: &str) -> Source {
    Source::from(Cause::from(why))
}

/// Whether a new connection may succeed where this one cannot: it is broken, or its server is no
/// longer the master.
fn spoils_connection(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io
        | ErrorKind::Parse
        | ErrorKind::AuthenticationFailed
        | ErrorKind::ClusterConnectionNotFound => true,
        // NOAUTH: the server got a password after the connection was made.
        _ => matches!(word(error), Some("READONLY" | "NOAUTH")) || error.is_unrecoverable_error(),
    }
}

/// The server's own word for its error. Before Redis 7 it stands inside a script's error: `ERR
/// Error running script …: -OOM …`.
fn word(error: &RedisError) -> Option<&str> {
    let code = error.code()?;
    let hidden = || error.detail()?.rsplit_once(": -")?.1.split(' ').next();
    match code {
        "ERR" => hidden()
            .filter(|word| word.bytes().all(|byte| byte.is_ascii_uppercase()))
            .or(Some(code)),
        code => Some(code),
    }
}

/// The late answers in a row that a connection may have.
const LATE_ANSWERS: u32 = 2;
