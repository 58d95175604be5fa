//! The scripts on a redis-server of the explorer's own.
//!
//! A state is its view: a step writes the keys that the view says, runs the real text, and reads all
//! keys back. The scripts take the time from their argument, as in the other tests.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use redis::Value;
use tempfile::TempDir;

use crate::engine::{Engine, Outcome, Step};
use crate::keys::{commands, framed, framed_call, read};
use crate::scripts::Scripts;
use crate::world::{Limits, Loss, Ms, Op, View};

/// A redis-server that listens on a socket in a folder of its own; it ends with the test.
pub struct Server {
    child: Child,
    folder: TempDir,
}

impl Server {
    pub fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let child = Command::new(program)
            .args(["--port", "0", "--unixsocket", "socket", "--save", "", "--appendonly", "no"])
            .args(["--loglevel", "warning"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("no redis-server: {error}; `make tools` installs it"));
        Self { child, folder }
    }

    fn connect(&self) -> redis::Connection {
        let started = Instant::now();
        let socket = self.folder.path().join("socket");
        loop {
            match dial(&socket) {
                Ok(connection) => return connection,
                Err(error) if started.elapsed() > PATIENCE => panic!("no redis-server: {error}"),
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    /// These scripts on this server.
    pub fn engine(&self, scripts: Scripts) -> RedisEngine {
        let mut connection = self.connect();
        let digest = redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg(scripts.harness())
            .query(&mut connection)
            .unwrap_or_else(|error| panic!("the scripts do not compile: {error}"));
        let (jobs, todo) = channel();
        let (answer, done) = channel();
        std::thread::spawn(move || work(connection, digest, &todo, &answer));
        RedisEngine {
            scripts,
            limits: Limits::AMPLE,
            jobs,
            done,
            under_way: 0,
            calls: HashMap::new(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn dial(socket: &Path) -> redis::RedisResult<redis::Connection> {
    redis::Client::open(format!("redis+unix://{}", socket.display()))?.get_connection()
}

/// Sends each lot, and hands its reply on: the explorer thinks about one while Redis runs another.
fn work(
    mut connection: redis::Connection,
    digest: String,
    todo: &Receiver<Vec<u8>>,
    answer: &Sender<Value>,
) {
    while let Ok(lot) = todo.recv() {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&digest).arg(KEYS.len()).arg(&KEYS).arg(lot);
        let reply = command.query(&mut connection).unwrap_or_else(|error| panic!("{error}"));
        if answer.send(reply).is_err() {
            return;
        }
    }
}

pub struct RedisEngine {
    scripts: Scripts,
    limits: Limits,
    jobs: Sender<Vec<u8>>,
    done: Receiver<Value>,
    under_way: usize,
    /// What each question looks like on the way.
    calls: HashMap<Op, Vec<u8>>,
}

impl RedisEngine {
    /// The same under these limits.
    pub fn under(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

impl Engine for RedisEngine {
    type Store = ();

    fn first(&self) -> ((), View) {
        ((), View::first(&self.limits))
    }

    fn later(&self, (): &(), view: &View, ms: Ms) -> ((), View) {
        ((), view.clone().after(ms, &self.limits))
    }

    fn lose(&self, (): &(), view: &View, loss: Loss) -> Option<((), View)> {
        Some(((), view.clone().without(loss, &self.limits)))
    }

    fn submit(&mut self, steps: Vec<Step<()>>) {
        let mut lot = Vec::new();
        for step in steps {
            framed(&mut lot, &commands(&step.view));
            let (scripts, limits) = (&self.scripts, &self.limits);
            let call = self.calls.entry(step.op).or_insert_with(|| {
                let (script, args) = scripts.call(step.op, limits);
                framed_call(script, &args)
            });
            lot.extend_from_slice(call);
        }
        self.jobs.send(lot).unwrap();
        self.under_way += 1;
    }

    fn collect(&mut self) -> Vec<Outcome<()>> {
        assert!(self.under_way > 0, "nothing is under way");
        self.under_way -= 1;
        let Value::Array(replies) = self.done.recv().unwrap() else { panic!("no list") };
        let outcome = |reply| {
            let (view, reply) = read(reply);
            Outcome { store: (), view, reply }
        };
        replies.into_iter().map(outcome).collect()
    }

    fn forget(&mut self) {
        for _ in 0..std::mem::take(&mut self.under_way) {
            self.done.recv().unwrap();
        }
    }
}

const KEYS: [&str; 7] = ["upstream", "tenant", "flights", "queue", "drops", "starts", "record"];
const PATIENCE: Duration = Duration::from_secs(30);
