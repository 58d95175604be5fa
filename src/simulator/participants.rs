//! The participants that exist, and the guarantee of ClientToken.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::clock::iso_8601;
use super::error::{ErrorCode, Failure};
use super::wire::Call;

/// A participant that was created. Its serialized form leaves out the token.
#[derive(Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Participant {
    /// A UUID.
    pub participant_id: String,
    /// The call that created it.
    #[serde(flatten)]
    pub call: Call,
    /// The time of creation, by the simulator's own clock.
    #[serde(serialize_with = "as_iso_8601")]
    pub created_at: Timestamp,
    /// When its credentials end, by the simulator's own clock.
    #[serde(serialize_with = "as_iso_8601")]
    pub expiry: Timestamp,
    #[serde(skip)]
    participant_token: String,
}

impl Participant {
    /// The credential that the client got: 256 characters, with no recognisable form.
    pub fn participant_token(&self) -> &str {
        &self.participant_token
    }
}

impl fmt::Debug for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Participant")
            .field("participant_id", &self.participant_id)
            .field("call", &self.call)
            .field("created_at", &self.created_at)
            .field("expiry", &self.expiry)
            .field("participant_token", &"[redacted]")
            .finish()
    }
}

/// In the order of creation. Beyond the capacity, the oldest are forgotten, with their
/// ClientTokens.
#[derive(Debug)]
pub(super) struct Participants {
    capacity: usize,
    created: VecDeque<Arc<Participant>>,
    by_token: HashMap<String, Arc<Participant>>,
    count: u64,
}

impl Participants {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { capacity, created: VecDeque::new(), by_token: HashMap::new(), count: 0 }
    }

    /// A new participant, or the one that the same call with the same ClientToken created before.
    pub(super) fn create(
        &mut self,
        call: Call,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Arc<Participant>, Failure> {
        if let Some(first) = call.client_token.as_ref().and_then(|token| self.by_token.get(token)) {
            return if first.call == call {
                Ok(Arc::clone(first))
            } else {
                Err(Failure::new(
                    ErrorCode::InvalidRequest,
                    "The ClientToken was used before, with other parameters.",
                ))
            };
        }
        let participant = Arc::new(Participant {
            participant_id: Uuid::new_v4().to_string(),
            call,
            created_at: now,
            expiry: now.checked_add(lifetime).unwrap_or(Timestamp::MAX),
            participant_token: (0..TOKEN_CHARS)
                .map(|_| fastrand::choice(BASE64).map_or('A', |c| char::from(*c)))
                .collect(),
        });
        if let Some(token) = &participant.call.client_token {
            self.by_token.insert(token.clone(), Arc::clone(&participant));
        }
        self.created.push_back(Arc::clone(&participant));
        self.count += 1;
        if self.created.len() > self.capacity {
            self.forget_oldest();
        }
        Ok(participant)
    }

    pub(super) fn list(&self) -> Vec<Arc<Participant>> {
        self.created.iter().cloned().collect()
    }

    /// The number of created participants, the forgotten ones included.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    fn forget_oldest(&mut self) {
        if let Some(token) =
            self.created.pop_front().and_then(|oldest| oldest.call.client_token.clone())
        {
            self.by_token.remove(&token);
        }
    }
}

fn as_iso_8601<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&iso_8601(*time))
}

const TOKEN_CHARS: usize = 256;
const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::wire::Role;

    const DAY: Duration = Duration::from_hours(24);

    fn call(client_token: Option<&str>) -> Call {
        Call {
            instance_id: "i".into(),
            contact_id: "c".into(),
            client_token: client_token.map(str::to_owned),
            display_name: Some("d".into()),
            role: Role::CustomBot,
            video: false,
            screen_share: false,
        }
    }

    #[test]
    fn the_same_token_and_call_yield_the_first_participant() {
        let mut participants = Participants::with_capacity(10);
        let first = participants.create(call(Some("t")), Timestamp::UNIX_EPOCH, DAY);
        let second = participants.create(call(Some("t")), Timestamp::now(), DAY);
        assert!(first.is_ok());
        assert_eq!(first, second);
        assert_eq!(participants.count(), 1);
    }

    #[test]
    fn the_same_token_with_another_call_is_refused() {
        let mut participants = Participants::with_capacity(10);
        participants
            .create(call(Some("t")), Timestamp::UNIX_EPOCH, DAY)
            .expect("the first");
        let other = Call { screen_share: true, ..call(Some("t")) };
        let refused = participants
            .create(other, Timestamp::UNIX_EPOCH, DAY)
            .expect_err("another call");
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
    }

    #[test]
    fn without_a_token_every_call_creates() {
        let mut participants = Participants::with_capacity(10);
        let mut create =
            || participants.create(call(None), Timestamp::UNIX_EPOCH, DAY).expect("no token");
        assert_ne!(create().participant_id, create().participant_id);
    }

    #[test]
    fn beyond_the_capacity_the_oldest_are_forgotten() {
        let mut participants = Participants::with_capacity(2);
        for token in ["a", "b", "c", "a"] {
            participants
                .create(call(Some(token)), Timestamp::UNIX_EPOCH, DAY)
                .expect("a participant");
        }
        let tokens: Vec<_> =
            participants.list().iter().map(|one| one.call.client_token.clone()).collect();
        assert_eq!(tokens, [Some("c".to_owned()), Some("a".to_owned())]);
        assert_eq!((participants.count(), participants.by_token.len()), (4, 2));
    }

    #[test]
    fn the_token_is_neither_printed_nor_listed() {
        let mut participants = Participants::with_capacity(1);
        let one = participants
            .create(call(None), Timestamp::UNIX_EPOCH, DAY)
            .expect("a participant");
        let listed = serde_json::to_string(&*one).expect("plain data");
        assert_eq!(one.participant_token().len(), 256);
        assert!(!format!("{one:?}{listed}").contains(one.participant_token()));
        assert!(
            listed.contains(r#""contact_id":"c""#) && listed.contains(r#""role":"CUSTOM_BOT""#),
            "{listed}"
        );
    }
}
