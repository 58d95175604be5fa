//! What the store holds now. It is read once a second at most, for any number of viewers, and never
//! without a viewer.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::admission::{Scope, Store, StoreLevels};
use crate::domain::Name;

/// A tenant and an upstream.
type Route = (Name, Name);

/// The latest readings of a store.
#[derive(Debug)]
pub(crate) struct Readings<S> {
    store: S,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    last_round: Option<Instant>,
    routes: HashMap<Route, Wanted>,
}

/// Somebody has looked at a tenant on an upstream.
#[derive(Debug)]
struct Wanted {
    scope: Scope,
    last: Instant,
    /// When the row was read, and its levels. `None`: the store could not be read.
    read: Option<(Instant, Option<StoreLevels>)>,
}

impl<S: Store> Readings<S> {
    #[must_use]
    pub(crate) fn new(store: S) -> Self {
        Self { store, kept: Mutex::default() }
    }

    /// What the store holds of these rows. If the last reading began a second ago or earlier, it
    /// reads anew: the rows with the oldest readings, [`MOST_ROWS`] at most. So a second viewer
    /// with another filter sees its own rows a second later.
    pub(crate) async fn of(&self, scopes: Vec<Scope>) -> HashMap<(Name, Name), StoreLevels> {
        let mut kept = self.kept.lock().await;
        let now = Instant::now();
        let route = |scope: &Scope| (scope.tenant.clone(), scope.upstream.clone());
        let asked: Vec<_> = scopes.iter().map(route).collect();
        for scope in scopes {
            let wanted = kept.routes.entry(route(&scope));
            let wanted =
                wanted.or_insert_with(|| Wanted { scope: scope.clone(), last: now, read: None });
            (wanted.scope, wanted.last) = (scope, now);
        }
        if kept.last_round.is_none_or(|last| now - last >= PAUSE) {
            kept.last_round = Some(now);
            kept.routes.retain(|_, wanted| now - wanted.last < UNSEEN);
            self.read(&mut kept, now).await;
        }
        let read = |route: Route| {
            let levels = kept.routes.get(&route)?.read.as_ref()?.1?;
            Some((route, levels))
        };
        asked.into_iter().filter_map(read).collect()
    }

    async fn read(&self, kept: &mut Kept, now: Instant) {
        let mut oldest: Vec<_> = kept.routes.iter().collect();
        oldest.sort_by_key(|(_, wanted)| wanted.read.as_ref().map(|(at, _)| *at));
        let oldest = oldest.into_iter().take(MOST_ROWS);
        let scopes: Vec<_> =
            oldest.map(|(route, wanted)| (route.clone(), wanted.scope.clone())).collect();
        let reads: Vec<_> = scopes
            .into_iter()
            .map(|(route, scope)| async move {
                let levels = timeout_at(now + LIMIT, self.store.levels_of(&scope)).await;
                (route, levels.ok().and_then(Result::ok))
            })
            .collect();
        let mut reads = futures_util::stream::iter(reads).buffer_unordered(AT_ONCE);
        while let Some((route, levels)) = reads.next().await {
            if let Some(wanted) = kept.routes.get_mut(&route) {
                wanted.read = Some((now, levels));
            }
        }
    }
}

/// Tenants with an upstream that are shown, and read at a time.
pub(crate) const MOST_ROWS: usize = 100;

/// From one reading of the store to the next: a little less than a second, so that a viewer who comes
/// each second never sees the same one twice.
const PAUSE: Duration = Duration::from_millis(990);

/// A row that no viewer asked for during this time is no longer read.
const UNSEEN: Duration = Duration::from_secs(3);

/// The longest that a reading takes.
const LIMIT: Duration = Duration::from_millis(900);

/// Questions to the store at a time.
const AT_ONCE: usize = 8;

#[cfg(test)]
mod tests;
