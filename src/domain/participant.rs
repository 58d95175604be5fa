//! The participant that Connect returns.

use std::fmt;
use std::time::SystemTime;

/// A participant that Connect has created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// Connect's id of the participant: 1 to 256 characters.
    pub id: String,
    /// The credential that the participant connects with.
    pub token: ParticipantToken,
    /// When the credential ends; `None` if Connect's answer holds no ISO 8601 time.
    pub expiry: Option<SystemTime>,
    /// When the gateway first received this participant from Connect.
    pub create_time: SystemTime,
}

/// The credential of a participant. It cannot be printed: only [`ParticipantToken::expose`] returns
/// it.
#[derive(Clone, PartialEq, Eq)]
pub struct ParticipantToken(String);

impl ParticipantToken {
    /// Wraps the secret: 1 to 1000 characters by Connect's model.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself, for the answer to the caller and for sealing.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ParticipantToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
