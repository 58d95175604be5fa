//! Series that are looked up only once.

use std::hash::Hash;
use std::sync::Mutex;

use foldhash::HashMap;

use crate::sync::lock;

/// The series of one instrument, each bound to its labels when it is first counted. Building and
/// looking up labels costs several times more than counting.
///
/// The keys come from the config and from closed sets, like the labels. Their number is therefore
/// bounded.
pub(super) struct Bound<K, I>(Mutex<HashMap<K, I>>);

impl<K: Eq + Hash, I: Clone> Bound<K, I> {
    /// The series of this key.
    pub(crate) fn of(&self, key: K, bind: impl FnOnce() -> I) -> I {
        let mut series = lock(&self.0);
        if let Some(bound) = series.get(&key) {
            return bound.clone();
        }
        let bound = bind();
        series.insert(key, bound.clone());
        bound
    }
}

impl<K, I> Default for Bound<K, I> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}
