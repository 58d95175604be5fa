//! Makes calls of `CreateParticipant`, and tells what became of them.
//!
//! Closed loop: a fixed number of streams. Each makes a call as soon as its last one is answered.
//! Open loop: calls arrive at random at a given rate, also while earlier ones are unanswered. Each
//! is timed from when it was due. In turns: a closed loop that goes and stops by command.
//!
//! It prints `begin` and `end` around the time that counts, and then one line of JSON. Its calls
//! are made by one thread, so it can use one core at most.

#![allow(clippy::expect_used, reason = "it cannot start: it says why, and ends")]

mod calls;
mod pace;
mod tally;
mod turns;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use participant_gateway_benches::REPEATED;
use tokio::runtime::Builder;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until};

use calls::{Connection, Template};
use tally::Tally;

#[derive(Debug, Parser)]
struct Options {
    /// Where the gateway listens
    target: SocketAddr,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Calls in flight on each connection, at most
    #[arg(long, default_value_t = 16)]
    streams: usize,
    /// Not counted
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Calls a second, open loop; absent: closed loop
    #[arg(long)]
    rate: Option<f64>,
    /// Takes turns with generators at other servers: a closed loop that works from a line `go` of
    /// its input to a line `stop`. It then prints `stopped`, once all calls are answered. The first
    /// turn does not count, and the end of the input ends the last one
    #[arg(long, conflicts_with_all = ["rate", "warm_up", "seconds"])]
    turns: bool,
    /// Rests between its rounds: for servers so quick that it would wake, read and write for each
    /// few answers, and fill its core before they fill theirs
    #[arg(long, conflicts_with = "rate")]
    rests: bool,
    /// The `client_token` of the calls
    #[arg(long, value_enum, default_value = "fresh")]
    token: Token,
    /// The contact of the calls; the simulator misbehaves for some
    #[arg(long, default_value = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee")]
    contact: String,
    /// Metadata, `name: value`
    #[arg(long)]
    header: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Token {
    /// Another one for each call
    Fresh,
    /// Each of two thousand in turn: calls with the same one are not in flight together
    Repeated,
    /// None
    None,
}

/// The time that counts.
#[derive(Debug, Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

impl Window {
    fn holds(self, at: Instant) -> bool {
        (self.begin..self.end).contains(&at)
    }
}

#[expect(clippy::disallowed_methods, reason = "the only thread is to rest")]
fn main() {
    pace::sleep_exactly();
    let options = Options::parse();
    let mut runtime = Builder::new_current_thread();
    if options.rests {
        runtime.on_thread_park(|| std::thread::sleep(REST));
    }
    let runtime = runtime.enable_all().build().expect("a runtime");
    runtime.block_on(LocalSet::new().run_until(run(options)));
}

async fn run(options: Options) {
    let template = Template::new(&options);
    let mut connections = Vec::new();
    for _ in 0..options.connections {
        connections.push(Connection::open(options.target).await);
    }
    if let Token::Repeated = options.token {
        prime(&connections, options.streams.min(PRIMING), &template).await;
    }
    if options.turns {
        let report = turns::take(&connections, options.streams, &template).await;
        println!("{report}");
        return;
    }
    let begin = Instant::now() + Duration::from_secs_f64(options.warm_up);
    let window = Window { begin, end: begin + Duration::from_secs_f64(options.seconds) };
    let tally = Rc::new(RefCell::new(Tally::default()));
    let load = match options.rate {
        Some(rate) => tokio::task::spawn_local(open(
            connections,
            options.streams,
            template,
            rate,
            window,
            Rc::clone(&tally),
        )),
        None => {
            for connection in connections {
                for _ in 0..options.streams {
                    let (connection, template) = (connection.clone(), template.clone());
                    let tally = Rc::clone(&tally);
                    let goes = move || Instant::now() < window.end;
                    let counts = move || window.holds(Instant::now());
                    tokio::task::spawn_local(closed(connection, template, goes, counts, tally));
                }
            }
            tokio::task::spawn_local(sleep_until(window.end))
        }
    };
    sleep_until(window.begin).await;
    let cpu = tally::cpu_time();
    println!("begin");
    sleep_until(window.end).await;
    let cpu = tally::cpu_time() - cpu;
    println!("end");
    load.await.expect("the load was made");
    println!("{}", tally.borrow().report(options.seconds, cpu));
}

/// Makes the first call of each `client_token` that is repeated.
async fn prime(connections: &[Connection], streams: usize, template: &Template) {
    let left = Rc::new(Cell::new(REPEATED));
    let mut priming = JoinSet::new();
    for connection in connections.iter().flat_map(|one| std::iter::repeat_n(one, streams)) {
        let (mut connection, template) = (connection.clone(), template.clone());
        let left = Rc::clone(&left);
        priming.spawn_local(async move {
            while let Some(fewer) = left.get().checked_sub(1) {
                left.set(fewer);
                let (request, body) = template.next();
                connection.call(request, body).await;
            }
        });
    }
    priming.join_all().await;
}

/// Call after call on one stream, while it `goes`. An answer counts where it `counts` when it comes.
async fn closed(
    mut connection: Connection,
    template: Template,
    goes: impl Fn() -> bool,
    counts: impl Fn() -> bool,
    tally: Rc<RefCell<Tally>>,
) {
    while goes() {
        let sent = Instant::now();
        let (request, body) = template.next();
        let outcome = connection.call(request, body).await;
        if counts() {
            tally.borrow_mut().count(outcome, sent.elapsed());
        }
    }
}

/// Calls at their times. Calls that are due within the window count, however late their answers
/// are.
async fn open(
    connections: Vec<Connection>,
    streams: usize,
    template: Template,
    rate: f64,
    window: Window,
    tally: Rc<RefCell<Tally>>,
) {
    let most = connections.len() * streams;
    let in_flight = Rc::new(());
    let mut due_times = pace::arrivals(rate, window.end);
    let mut turn = 0;
    while let Some(due) = due_times.recv().await {
        let counts = window.holds(due);
        if counts {
            tally.borrow_mut().late(due.elapsed());
        }
        if Rc::strong_count(&in_flight) > most {
            if counts {
                tally.borrow_mut().unsent += 1;
            }
            continue;
        }
        turn = (turn + 1) % connections.len();
        let mut connection = connections[turn].clone();
        let (request, body) = template.next();
        let (tally, place) = (Rc::clone(&tally), Rc::clone(&in_flight));
        tokio::task::spawn_local(async move {
            let outcome = connection.call(request, body).await;
            if counts {
                tally.borrow_mut().count(outcome, due.elapsed());
            }
            drop(place);
        });
    }
    let patience = Instant::now() + STRAGGLERS;
    while Rc::strong_count(&in_flight) > 1 && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tally.borrow_mut().unanswered = Rc::strong_count(&in_flight) as u64 - 1;
}

/// Streams of a connection while it primes: all together, fewer calls than a gateway takes at once.
const PRIMING: usize = 16;

/// For the answers of calls that were due within the window.
const STRAGGLERS: Duration = Duration::from_secs(5);

/// Much less than the calls in flight take the quickest server.
const REST: Duration = Duration::from_micros(200);

/// The system's allocator would slow the generator down, and so change the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
