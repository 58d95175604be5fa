//! Turns: each server works while the others wait, so that all of them see the same machine.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::calls::{Connection, Template};
use super::closed;
use super::tally::{self, Tally};

/// Takes the turns that the input asks for, and reports all but the first.
pub async fn take(connections: &[Connection], streams: usize, template: &Template) -> Value {
    let mut lines = input();
    let tally = Rc::new(RefCell::new(Tally::default()));
    let (mut worked, mut used) = (Duration::ZERO, Duration::ZERO);
    let mut is_warm = false;
    while lines.recv().await.is_some_and(|line| line == "go") {
        let (begin, cpu) = (Instant::now(), tally::cpu_time());
        let goes = Rc::new(Cell::new(true));
        let mut calls = JoinSet::new();
        for connection in connections.iter().flat_map(|one| std::iter::repeat_n(one, streams)) {
            let goes = Rc::clone(&goes);
            calls.spawn_local(closed(
                connection.clone(),
                template.clone(),
                move || goes.get(),
                move || is_warm,
                Rc::clone(&tally),
            ));
        }
        lines.recv().await;
        goes.set(false);
        calls.join_all().await;
        if is_warm {
            worked += begin.elapsed();
            used += tally::cpu_time() - cpu;
        }
        is_warm = true;
        println!("stopped");
    }
    tally.borrow().report(worked.as_secs_f64(), used)
}

/// The lines of the input, which a thread of its own waits for.
fn input() -> UnboundedReceiver<String> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
