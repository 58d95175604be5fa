//! A store that can be put into any state and asked one thing there.

use crate::world::{Loss, Ms, Op, Reply, View};

/// One thing that is asked in one state.
pub struct Step<S> {
    pub store: S,
    pub view: View,
    pub op: Op,
}

/// What came of it.
pub struct Outcome<S> {
    pub store: S,
    pub view: View,
    pub reply: Reply,
}

pub trait Engine {
    /// What a state needs beside its [`View`].
    type Store: Clone;

    /// The store before the first call.
    fn first(&self) -> (Self::Store, View);

    /// The same, so much later.
    fn later(&self, store: &Self::Store, view: &View, ms: Ms) -> (Self::Store, View);

    /// The same after a loss; nothing where this store cannot lose that.
    fn lose(&self, store: &Self::Store, view: &View, loss: Loss) -> Option<(Self::Store, View)>;

    /// Begins with these steps. Two lots may be under way.
    fn submit(&mut self, steps: Vec<Step<Self::Store>>);

    /// What came of the oldest lot under way, in its order.
    fn collect(&mut self) -> Vec<Outcome<Self::Store>>;

    /// Waits for all that is under way, and drops what came of it.
    fn forget(&mut self);
}
