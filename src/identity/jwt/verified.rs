//! The tokens whose signature a key set has verified: a caller sends one token with many calls, and
//! the signature is by far the most expensive check.
//!
//! Only the signature is remembered, by the digest of the whole token. Every call still checks the
//! claims, the time and the algorithm. A key set has its own memory: when a new set replaces it,
//! the signatures are verified again.

use std::collections::HashSet;
use std::fmt::{self, Debug, Formatter};
use std::mem::take;
use std::sync::Mutex;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use crate::sync::lock;

/// The digests of the last verified tokens, twice [`MOST`] at most.
#[derive(Default)]
pub(super) struct Verified(Mutex<Generations>);

/// SHA-256 of a token: the token itself is a secret, and longer.
type Digest = [u8; SHA256_OUTPUT_LEN];

/// When the younger generation is full, it takes the place of the older one.
#[derive(Default)]
struct Generations {
    younger: HashSet<Digest>,
    older: HashSet<Digest>,
}

impl Verified {
    /// Whether the signature of this token is good: as remembered, or as `verify` finds. A bad
    /// signature is not remembered.
    pub(crate) fn or_else(&self, token: &str, verify: impl FnOnce() -> bool) -> bool {
        let mut key = Digest::default();
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if lock(&self.0).knows(&key) {
            return true;
        }
        let is_good = verify();
        if is_good {
            lock(&self.0).add(key);
        }
        is_good
    }
}

/// Without the digests.
impl Debug for Verified {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Generations { younger, older } = &*lock(&self.0);
        write!(f, "Verified({} tokens)", younger.len() + older.len())
    }
}

impl Generations {
    fn knows(&mut self, key: &Digest) -> bool {
        if self.younger.contains(key) {
            return true;
        }
        // A token in use moves on with the younger generation.
        let is_known = self.older.remove(key);
        if is_known {
            self.add(*key);
        }
        is_known
    }

    fn add(&mut self, key: Digest) {
        if self.younger.len() >= MOST {
            self.older = take(&mut self.younger);
        }
        self.younger.insert(key);
    }
}

/// Tokens in a generation: about 270 KiB for both, in each key set. More callers than that take turns, and each
/// verifies its token again.
const MOST: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn is_asked(verified: &Verified, token: &str, answer: bool) -> bool {
        let mut was_asked = false;
        let is_good = verified.or_else(token, || {
            was_asked = true;
            answer
        });
        assert_eq!(is_good, answer || !was_asked);
        was_asked
    }

    #[test]
    fn a_good_signature_is_verified_once() {
        let verified = Verified::default();
        assert!(is_asked(&verified, "a.b.c", true));
        assert!(!is_asked(&verified, "a.b.c", false));
        for other in ["a.b.d", "a.b.", "a.b", "A.b.c", "a.b.c ", ""] {
            assert!(is_asked(&verified, other, false), "{other}");
        }
    }

    #[test]
    fn a_bad_signature_is_verified_each_time() {
        let verified = Verified::default();
        for _ in 0..3 {
            assert!(is_asked(&verified, "a.b.c", false));
        }
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_the_tokens_in_use() {
        let verified = Verified::default();
        assert!(is_asked(&verified, "used", true));
        for other in 0..5 * MOST {
            assert!(is_asked(&verified, &other.to_string(), true));
            if other % MOST == 0 {
                assert!(!is_asked(&verified, "used", false), "{other}");
            }
        }
        let Generations { younger, older } = &*lock(&verified.0);
        assert!(younger.len() + older.len() <= 2 * MOST);
    }

    #[test]
    fn a_token_that_is_long_out_of_use_is_verified_again() {
        let verified = Verified::default();
        assert!(is_asked(&verified, "old", true));
        for other in 0..2 * MOST {
            assert!(is_asked(&verified, &other.to_string(), true));
        }
        assert!(is_asked(&verified, "old", true));
    }
}
