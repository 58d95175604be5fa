//! Locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes the lock, also after a panic under it.
///
/// Every mutex of this program guards data that is consistent between two statements. A panic under
/// the lock is a bug of one call, and must not end all other calls.
#[expect(clippy::disallowed_methods, reason = "the one place that decides about poisoned locks")]
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
