//! Everything that may happen in a state.

use std::sync::Arc;

use crate::callers::{Delivery, Phase};
use crate::engine::Engine;
use crate::search::{Event, Move, Scenario, State};
use crate::world::{LEASE, Loss, Ms, Op, STEP, Stage, Who};

/// All that may happen next.
pub fn of<E: Engine>(
    state: &State<E::Store>,
    scenario: &Scenario,
    engine: &E,
) -> Vec<Move<E::Store>> {
    let mut moves = Vec::new();
    sends(state, scenario, &mut moves);
    arrivals(state, &mut moves);
    if state.faults > 0 {
        crashes(state, &mut moves);
    }
    passes(state, engine, &mut moves);
    losses(state, engine, &mut moves);
    moves.push(probe(state, engine));
    moves
}

fn sends<S: Clone>(state: &State<S>, scenario: &Scenario, moves: &mut Vec<Move<S>>) {
    for (who, (call, spec)) in (0..).zip(state.calls.iter().zip(&scenario.calls)) {
        for op in call.sends(who, *spec) {
            for delivery in Delivery::ALL {
                let fits =
                    !delivery.stays_on_the_way() || state.on_the_way.len() < scenario.on_the_way;
                let fault = u8::from(delivery != Delivery::Heard);
                if state.faults < fault || !fits || !call.may_befall(op, delivery) {
                    continue;
                }
                let mut state = state.clone();
                state.faults -= fault;
                if delivery.stays_on_the_way() {
                    state.on_the_way.push(op);
                }
                let event = Event::Send(op, delivery);
                if delivery.arrives() {
                    moves.push(Move { state, event, op: Some(op) });
                } else {
                    state.calls[usize::from(who)].sent(*spec, op, None);
                    moves.push(Move { state, event, op: None });
                }
            }
        }
    }
}

fn arrivals<S: Clone>(state: &State<S>, moves: &mut Vec<Move<S>>) {
    for (index, op) in state.on_the_way.iter().enumerate() {
        if index > 0 && state.on_the_way[index - 1] == *op {
            continue;
        }
        let mut state = state.clone();
        state.on_the_way.remove(index);
        moves.push(Move { state, event: Event::Arrive(*op), op: Some(*op) });
    }
}

fn crashes<S: Clone>(state: &State<S>, moves: &mut Vec<Move<S>>) {
    for (index, call) in state.calls.iter().enumerate() {
        let holds = !matches!(call.phase, Phase::Ended | Phase::Asking { stands: false });
        if holds {
            let mut state = state.clone();
            state.calls[index].end();
            state.faults -= 1;
            moves.push(Move { state, event: Event::Crash(index as Who), op: None });
        }
    }
}

/// One step, and until something ends that stands in the store.
fn passes<E: Engine>(state: &State<E::Store>, engine: &E, moves: &mut Vec<Move<E::Store>>) {
    let Some(next) = state.view.ends().min() else { return };
    for ms in if next == STEP { vec![STEP] } else { vec![STEP, next] } {
        let mut later = state.clone();
        let (store, view) = engine.later(&state.store, &state.view, ms);
        (later.store, later.view) = (store, Arc::new(view));
        let had_record = later.account.has_record();
        later.account.after(ms);
        if had_record && !later.account.has_record() {
            forgive(&mut later);
        }
        moves.push(Move { state: later, event: Event::Pass(ms), op: None });
    }
}

fn losses<E: Engine>(state: &State<E::Store>, engine: &E, moves: &mut Vec<Move<E::Store>>) {
    let ended = state.view.record.is_some_and(|record| record.until == 0);
    let mut losses = if ended { vec![Loss::Ended] } else { Vec::new() };
    if state.losses > 0 {
        losses.extend([Loss::Everything, Loss::Flights]);
        if state.account.has_record() {
            losses.push(Loss::Record);
        }
    }
    for loss in losses {
        let Some((store, view)) = engine.lose(&state.store, &state.view, loss) else { continue };
        let mut lost = state.clone();
        (lost.store, lost.view) = (store, Arc::new(view));
        match loss {
            Loss::Ended => {}
            Loss::Everything => {
                lost.account.lose_everything();
                forgive(&mut lost);
            }
            Loss::Record => {
                lost.account.lose_record();
                forgive(&mut lost);
            }
            Loss::Flights => lost.account.lose_places(),
        }
        lost.losses -= u8::from(loss != Loss::Ended);
        moves.push(Move { state: lost, event: Event::Lose(loss), op: None });
    }
}

/// The record is gone, and with it what could tell other content from a new call: the one limit of
/// the promise.
fn forgive<S>(state: &mut State<S>) {
    state.calls.iter_mut().for_each(|call| call.may_be_executed = false);
}

/// The record's own content is asked for by a call that was never there before.
fn probe<E: Engine>(state: &State<E::Store>, engine: &E) -> Move<E::Store> {
    let content = state.account.content().unwrap_or(0);
    let op = Op::Ask { who: STRANGER, stage: Stage::Call, content, distrust: None };
    let (store, view) = engine.later(&state.store, &state.view, PROBED_AFTER);
    let mut later = state.clone();
    (later.store, later.view) = (store, Arc::new(view));
    Move { state: later, event: Event::Probe(op), op: Some(op) }
}

/// After this time nothing may be stuck: all leases have ended, and so has each wait in the
/// queue.
pub const PROBED_AFTER: Ms = LEASE + STEP;

const STRANGER: Who = 8;
