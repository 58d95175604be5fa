//! Every interleaving, breadth first: so the first violation found is one of the shortest.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::callers::{Call, CallSpec, Delivery};
use crate::engine::{Engine, Outcome, Step};
use crate::moves;
use crate::names::{Names, alike};
use crate::promises::{Account, Answer};
use crate::world::{Limits, Loss, Ms, Op, Reply, View, Who};

/// What is explored.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: &'static str,
    pub calls: Vec<CallSpec>,
    pub limits: Limits,
    /// The most messages that are lost, late or doubled, replies that are lost, and crashes.
    pub faults: u8,
    /// The most losses of Redis data.
    pub losses: u8,
    /// The most messages that are on their way at once.
    pub on_the_way: usize,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    Send(Op, Delivery),
    /// A message that was late, or was doubled.
    Arrive(Op),
    Crash(Who),
    Pass(Ms),
    Lose(Loss),
    /// Nobody renews, and all leases have ended.
    Probe(Op),
}

pub struct State<S> {
    pub store: S,
    pub view: Arc<View>,
    pub calls: Vec<Call>,
    pub on_the_way: Vec<Op>,
    pub account: Account,
    pub faults: u8,
    pub losses: u8,
    /// Its own place in the search.
    node: u32,
}

impl<S> State<S> {
    /// The state with its calls under these names, as one number. What makes no difference is left
    /// out.
    fn seen_as(&self, names: &Names, queues: bool) -> u64 {
        let Self { view, calls, on_the_way, account, faults, losses, .. } = self;
        if names.are_own() {
            return hash(&(seen_of(view, queues), calls, on_the_way, account, faults, losses));
        }
        let mut renamed = calls.clone();
        for (index, call) in calls.iter().enumerate() {
            renamed[usize::from(names.of(index as Who))] =
                Call { distrust: call.distrust.map(|who| names.of(who)), ..*call };
        }
        let mut on_the_way: Vec<_> = on_the_way.iter().map(|op| names.of_op(*op)).collect();
        on_the_way.sort_unstable();
        let (view, account) = (names.of_view(view), account.renamed(names));
        hash(&(seen_of(&view, queues), &renamed, &on_the_way, &account, faults, losses))
    }
}

impl<S: Clone> Clone for State<S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            view: Arc::clone(&self.view),
            calls: self.calls.clone(),
            on_the_way: self.on_the_way.clone(),
            account: self.account.clone(),
            ..*self
        }
    }
}

/// What came of a search.
#[derive(Debug)]
pub struct Found {
    pub states: usize,
    pub transitions: u64,
    /// States whose successors were not looked at.
    pub left: usize,
    pub depth: usize,
    /// The kinds of answers that were seen.
    pub answers: BTreeSet<&'static str>,
    pub violation: Option<Violation>,
}

#[derive(Debug)]
pub struct Violation {
    pub promise: String,
    /// What happened, and what was answered.
    pub way: Vec<(Event, Option<Reply>)>,
}

/// A state, and what happens in it.
pub struct Move<S> {
    /// As it is once the message has left.
    pub state: State<S>,
    pub event: Event,
    /// What the store is asked.
    pub op: Option<Op>,
}

/// What the store has answered, and what stood there then.
#[derive(Clone)]
struct Known<S> {
    store: S,
    view: Arc<View>,
    reply: Reply,
}

/// A promise that is broken, and after which state and by what.
type Broken = (String, u32, Event);

pub struct Search<'a, E: Engine> {
    engine: &'a mut E,
    scenario: &'a Scenario,
    first: View,
    alike: Vec<Names>,
    seen: HashSet<u64>,
    /// Of each state: where it came from, and how.
    nodes: Vec<(u32, Event)>,
    next: Vec<State<E::Store>>,
    transitions: u64,
    answers: BTreeSet<&'static str>,
    probed: HashSet<u64>,
    /// What the store answers in a view that was seen before.
    known: HashMap<(u64, Op), Known<E::Store>>,
}

impl<'a, E: Engine> Search<'a, E> {
    pub fn new(engine: &'a mut E, scenario: &'a Scenario) -> Self {
        let (_, first) = engine.first();
        Self {
            engine,
            scenario,
            first,
            alike: alike(&scenario.calls),
            seen: HashSet::new(),
            nodes: Vec::new(),
            next: Vec::new(),
            transitions: 0,
            answers: BTreeSet::new(),
            probed: HashSet::new(),
            known: HashMap::new(),
        }
    }

    /// Searches until all is seen, the time is over, or a promise is broken.
    pub fn run(mut self, limit: Duration) -> Found {
        let until = Instant::now() + limit;
        let (store, view) = self.engine.first();
        let first = State {
            store,
            view: Arc::new(view),
            calls: vec![Call::NEW; self.scenario.calls.len()],
            on_the_way: Vec::new(),
            account: Account::default(),
            faults: self.scenario.faults,
            losses: self.scenario.losses,
            node: 0,
        };
        self.enter(first, Event::Pass(0));
        let (mut depth, mut left, mut violation) = (0, 0, None);
        while !self.next.is_empty() && left == 0 {
            let level = std::mem::take(&mut self.next);
            match self.level(level, until) {
                Ok(0) => depth += 1,
                Ok(skipped) => left = skipped + self.next.len(),
                Err(broken) => {
                    violation = Some(self.told(broken));
                    break;
                }
            }
        }
        let (states, transitions, answers) = (self.nodes.len(), self.transitions, self.answers);
        Found { states, transitions, left, depth, answers, violation }
    }

    /// All successors of a level. Returns how many states there was no time for.
    fn level(&mut self, level: Vec<State<E::Store>>, until: Instant) -> Result<usize, Broken> {
        let mut todo = level.into_iter();
        let mut under_way: Option<Vec<Move<E::Store>>> = None;
        loop {
            let mut lot = Vec::new();
            let is_over = Instant::now() > until;
            while !is_over && lot.len() < LOT {
                let Some(state) = todo.next() else { break };
                for event in moves::of(&state, self.scenario, &*self.engine) {
                    self.happens(event, &mut lot)?;
                }
            }
            let is_empty = lot.is_empty();
            if !is_empty {
                self.engine.submit(lot.iter().filter_map(step).collect());
            }
            if let Some(asked) = under_way.take() {
                for (asked, outcome) in asked.into_iter().zip(self.engine.collect()) {
                    self.answered(asked, outcome)?;
                }
            }
            if !is_empty {
                under_way = Some(lot);
            } else if is_over || todo.len() == 0 {
                return Ok(todo.len());
            }
        }
    }

    /// Something happens: the next state is known at once, or the store is asked.
    fn happens(
        &mut self,
        event: Move<E::Store>,
        lot: &mut Vec<Move<E::Store>>,
    ) -> Result<(), Broken> {
        let Some(op) = event.op else {
            self.transitions += 1;
            self.enter(event.state, event.event);
            return Ok(());
        };
        let view = hash(&seen_of(&event.state.view, true));
        if matches!(event.event, Event::Probe(_)) && !self.probed.insert(hash(&(view, op))) {
            return Ok(());
        }
        match self.known.get(&(view, op)) {
            Some(known) => {
                let known = known.clone();
                self.judge(event, known)
            }
            None => {
                lot.push(event);
                Ok(())
            }
        }
    }

    fn answered(
        &mut self,
        asked: Move<E::Store>,
        outcome: Outcome<E::Store>,
    ) -> Result<(), Broken> {
        let Outcome { store, view, reply } = outcome;
        let known = Known { store, view: Arc::new(view), reply };
        if let Some(op) = asked.op {
            let key = (hash(&seen_of(&asked.state.view, true)), op);
            self.known.insert(key, known.clone());
        }
        self.judge(asked, known)
    }

    fn judge(&mut self, asked: Move<E::Store>, known: Known<E::Store>) -> Result<(), Broken> {
        self.transitions += 1;
        let Move { mut state, event, op } = asked;
        let Known { store, view: after, reply } = known;
        let Some(op) = op else { return Ok(()) };
        let broken = |why| (why, state.node, event);
        if matches!(event, Event::Probe(_)) {
            return match reply {
                Reply::Granted { .. } | Reply::Replay(_) | Reply::Tombstone => Ok(()),
                stuck => Err(broken(format!("after all leases a call is still told {stuck:?}"))),
            };
        }
        self.answers.insert(reply.kind());
        let contents = self.scenario.calls.iter().map(|spec| spec.content);
        let calls: Vec<_> = state.calls.iter().copied().zip(contents).collect();
        let answer =
            Answer { op, reply: &reply, before: &state.view, after: &after, calls: &calls };
        let followed = state.account.follow(&answer);
        followed.map_err(|why| (why, state.node, event))?;
        if let Event::Send(op, delivery) = event {
            let who = usize::from(op.who());
            let heard = delivery.is_heard().then_some(&reply);
            state.calls[who].sent(self.scenario.calls[who], op, heard);
        }
        state.store = store;
        state.view = self.levelled(after);
        self.enter(state, event);
        Ok(())
    }

    /// Levels that decide nothing are as they were at first: each change of theirs was judged.
    fn levelled(&self, view: Arc<View>) -> Arc<View> {
        let (ceiling, budget) = (self.first.ceiling, self.first.budget);
        let same_budget = self.scenario.limits.queues() || view.budget == budget;
        if view.ceiling == ceiling && same_budget {
            return view;
        }
        let mut levelled = View::clone(&view);
        levelled.ceiling = ceiling;
        if !same_budget {
            levelled.budget = budget;
        }
        Arc::new(levelled)
    }

    /// A state that was not seen before is looked at later.
    fn enter(&mut self, mut state: State<E::Store>, event: Event) {
        state.on_the_way.sort_unstable();
        let names = self.alike.iter();
        let seen = names.map(|names| state.seen_as(names, self.scenario.limits.queues())).min();
        if seen.is_some_and(|seen| self.seen.insert(seen)) {
            self.nodes.push((state.node, event));
            state.node = (self.nodes.len() - 1) as u32;
            self.next.push(state);
        }
    }

    /// The way to a broken promise, walked once more to hear what was answered.
    fn told(&mut self, (promise, mut node, event): Broken) -> Violation {
        let mut events = vec![event];
        while node > 0 {
            let (from, event) = self.nodes[node as usize];
            events.push(event);
            node = from;
        }
        events.reverse();
        self.engine.forget();
        let (mut store, mut view) = self.engine.first();
        let mut way = Vec::new();
        for event in events {
            let reply = match event {
                Event::Pass(ms) => {
                    (store, view) = self.engine.later(&store, &view, ms);
                    None
                }
                Event::Lose(loss) => {
                    (store, view) = self.engine.lose(&store, &view, loss).expect("it was lost");
                    None
                }
                Event::Crash(_) => None,
                Event::Send(_, delivery) if !delivery.arrives() => None,
                Event::Send(op, _) | Event::Arrive(op) | Event::Probe(op) => {
                    if matches!(event, Event::Probe(_)) {
                        (store, view) = self.engine.later(&store, &view, moves::PROBED_AFTER);
                    }
                    self.engine.submit(vec![Step { store, view, op }]);
                    let outcome = self.engine.collect().remove(0);
                    (store, view) = (outcome.store, outcome.view);
                    Some(outcome.reply)
                }
            };
            way.push((event, reply));
        }
        Violation { promise, way }
    }
}

fn step<S: Clone>(event: &Move<S>) -> Option<Step<S>> {
    let view = View::clone(&event.state.view);
    event.op.map(|op| Step { store: event.state.store.clone(), view, op })
}

/// The part of a state that makes a difference. Ample levels make none.
fn seen_of(view: &View, queues: bool) -> impl Hash + use<'_> {
    let budget = queues.then_some(view.budget);
    (view.record, &view.flights, &view.queue, view.tags, view.queued, budget)
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// So many questions go to the store in one round trip.
const LOT: usize = 512;
