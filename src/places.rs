//! Places that are counted per key, and the permits of calls in flight.

use std::hash::Hash;
use std::sync::{Arc, Mutex};

use foldhash::HashMap;
use tokio::sync::OwnedSemaphorePermit;

use crate::sync::lock;

/// A place among the calls in flight of this process. Every future that works for the call holds
/// one, even after its caller has left.
pub(crate) type Permit = Arc<OwnedSemaphorePermit>;

/// The number of taken places per key. A key without a taken place uses no memory.
#[derive(Debug)]
pub(crate) struct Places<K>(Arc<Mutex<HashMap<K, u32>>>);

/// A place, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Hash + Eq> {
    places: Places<K>,
    key: K,
}

impl<K: Hash + Eq + Clone> Places<K> {
    /// Takes a place; `None` if `most` places of this key are already taken.
    #[must_use]
    pub(crate) fn enter(&self, key: &K, most: u32) -> Option<Place<K>> {
        let mut places = lock(&self.0);
        let taken = places.get(key).copied().unwrap_or_default();
        if taken >= most {
            return None;
        }
        places.insert(key.clone(), taken + 1);
        Some(Place { places: Self(Arc::clone(&self.0)), key: key.clone() })
    }
}

impl<K> Default for Places<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Clone for Places<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut places = lock(&self.places.0);
        if let Some(taken) = places.get_mut(&self.key) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&self.key);
            }
        }
    }
}
