//! Admission's stores: one contract over both, a model test that holds them equal, the budget's
//! invariants, and what only Redis can suffer.

mod budget;
mod contract;
mod crowds;
mod fairness;
mod hints;
mod inspect;
mod invariants;
mod limits;
mod link;
mod model;
mod plans;
mod promises;
mod record_history;
mod redis_keys;
mod results;
mod topologies;
mod world;
