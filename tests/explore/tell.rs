//! A way to a state as sentences.

use std::fmt::Write;

use crate::callers::Delivery;
use crate::moves::PROBED_AFTER;
use crate::search::{Event, Found, Scenario, Violation};
use crate::world::{Loss, Op, Reply, Stage, Verdict};

/// The line that closes a search.
pub fn closing(store: &str, scenario: &Scenario, found: &Found) -> String {
    let end = match (&found.violation, found.left) {
        (Some(_), _) => "a promise is BROKEN".to_owned(),
        (None, 0) => "complete".to_owned(),
        (None, left) => format!("NOT complete, {left} states wait"),
    };
    format!(
        "{store}, {}: {} states, {} transitions, {} deep, {end}",
        scenario.name, found.states, found.transitions, found.depth
    )
}

/// The way to a broken promise, a sentence a line.
pub fn way(scenario: &Scenario, violation: &Violation) -> String {
    let mut text = format!("{}:\n", violation.promise);
    for (number, (event, reply)) in (1..).zip(&violation.way) {
        let sentence = sentence(scenario, *event, reply.as_ref());
        let _ = writeln!(text, "  {number}. {sentence}");
    }
    text
}

fn sentence(scenario: &Scenario, event: Event, reply: Option<&Reply>) -> String {
    let answer = reply.map(answer).unwrap_or_default();
    match event {
        Event::Send(op, Delivery::Heard) => format!("{}: {answer}.", says(scenario, op)),
        Event::Send(op, Delivery::ReplyLost) => {
            format!("{}: {answer}. The reply is lost.", says(scenario, op))
        }
        Event::Send(op, Delivery::Lost) => format!("{}. The message is lost.", says(scenario, op)),
        Event::Send(op, Delivery::Late) => {
            format!("{}. The message is late, and its sender gives up on it.", says(scenario, op))
        }
        Event::Send(op, Delivery::Doubled) => {
            format!("{}: {answer}. The message is on its way once more.", says(scenario, op))
        }
        Event::Arrive(op) => format!("A late message arrives. {}: {answer}.", says(scenario, op)),
        Event::Crash(who) => format!("The gateway of call {} crashes.", who + 1),
        Event::Pass(ms) => format!("{} s pass.", f64::from(ms) / 1e3),
        Event::Lose(loss) => lost(loss).to_owned(),
        Event::Probe(op) => format!(
            "{} s pass, and nobody renews. {}: {answer}.",
            f64::from(PROBED_AFTER) / 1e3,
            says(scenario, op)
        ),
    }
}

fn says(scenario: &Scenario, op: Op) -> String {
    let who = usize::from(op.who());
    let name = match scenario.calls.get(who) {
        Some(spec) => format!("Call {} (content {})", who + 1, content(spec.content)),
        None => "A call that was never there before".to_owned(),
    };
    let does = match op {
        Op::Ask { stage: Stage::Call, distrust: None, .. } => "asks".to_owned(),
        Op::Ask { stage: Stage::Call, distrust: Some(by), .. } => {
            format!("cannot open the result of call {}, and asks to take it over", by + 1)
        }
        Op::Ask { stage: Stage::Attempt { uncertain: true }, .. } => {
            "asks for a second attempt, and the first may have been executed".to_owned()
        }
        Op::Ask { stage: Stage::Attempt { uncertain: false }, .. } => {
            "asks for a second attempt, and the first was not executed".to_owned()
        }
        Op::Ask { stage: Stage::Renew, .. } => "renews its lease".to_owned(),
        Op::Settle { verdict, .. } => match verdict {
            Verdict::Done => "settles its result".to_owned(),
            Verdict::Release => "releases its claim".to_owned(),
            Verdict::Refund => "releases its claim, and asks for its charge".to_owned(),
            Verdict::Uncertain => "settles as uncertain".to_owned(),
        },
    };
    format!("{name} {does}")
}

fn answer(reply: &Reply) -> String {
    match reply {
        Reply::Granted { sticky: false, .. } => "granted".to_owned(),
        Reply::Granted { sticky: true, .. } => "granted, as one that may have been executed".into(),
        Reply::Replay(by) => format!("the result of call {}", by + 1),
        Reply::Mismatch(of) => format!("a mismatch, the record is of content {}", content(*of)),
        Reply::Busy(left) => format!("busy, the lease runs for {} s", f64::from(*left) / 1e3),
        Reply::Tombstone => "the result has ended".to_owned(),
        Reply::Lost => "the claim is lost".to_owned(),
        Reply::Refused => "refused".to_owned(),
        Reply::AskAgain(ms) => format!("queued, ask again in {} s", f64::from(*ms) / 1e3),
        Reply::Settled(true) => "done".to_owned(),
        Reply::Settled(false) => "the claim is not its own".to_owned(),
        Reply::Broken(why) => why.clone(),
    }
}

fn lost(loss: Loss) -> &'static str {
    match loss {
        Loss::Everything => "Redis loses everything.",
        Loss::Record => "Redis evicts the record.",
        Loss::Flights => "Redis evicts the calls in flight.",
        Loss::Ended => "Redis forgets the record, which has ended.",
    }
}

fn content(content: u8) -> char {
    char::from(b'A' + content)
}
