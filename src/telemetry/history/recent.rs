//! The last calls that were refused or failed.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::call::{Ended, Notes};
use crate::domain::Name;

/// A call that was refused, or failed.
#[derive(Debug, Clone)]
pub(crate) struct FailedCall {
    /// When it ended.
    pub at: SystemTime,
    /// The call's name: 1 to 128 visible ASCII characters.
    pub request_id: String,
    /// The caller, if it is a tenant.
    pub tenant: Option<Name>,
    /// The upstream, if the call got so far.
    pub upstream: Option<Name>,
    /// The name of the gRPC code.
    pub code: &'static str,
    /// The reason in `ErrorInfo`; empty where the caller left before its answer.
    pub reason: &'static str,
    /// Why the caller was refused for its identity.
    pub refusal: Option<&'static str>,
    /// The sentence that tells the caller what to do.
    pub sentence: &'static str,
}

/// The last of them.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<FailedCall>);

impl Recent {
    /// The oldest one makes room, and gives its text's memory.
    pub(crate) fn note(&mut self, notes: &Notes, ended: &Ended) {
        let mut request_id = match self.0.len() {
            MOST.. => self.0.pop_front().map(|oldest| oldest.request_id).unwrap_or_default(),
            _ => String::new(),
        };
        request_id.clear();
        request_id.push_str(notes.request_id());
        self.0.push_back(FailedCall {
            at: SystemTime::now(),
            request_id,
            tenant: notes.tenant().cloned(),
            upstream: notes.upstream().cloned(),
            code: ended.code,
            reason: ended.reason,
            refusal: notes.refusal().map(|(kind, _)| kind),
            sentence: ended.sentence,
        });
    }

    /// The latest first.
    pub(crate) fn latest(&self) -> Vec<FailedCall> {
        self.0.iter().rev().cloned().collect()
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let texts: usize = self.0.iter().map(|call| call.request_id.capacity()).sum();
        texts + self.0.capacity() * size_of::<FailedCall>()
    }
}

/// As many are kept: docs/design/contract.md, "The console".
const MOST: usize = 50;
