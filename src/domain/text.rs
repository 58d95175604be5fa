//! Strings with bounds. Lengths count Unicode characters, as Connect's model does.

use std::fmt;
use std::sync::Arc;

/// A text whose length is outside its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfBounds {
    /// Fewest characters allowed.
    pub min: usize,
    /// Most characters allowed.
    pub max: usize,
    /// Characters found.
    pub(crate) actual: usize,
}

impl fmt::Display for OutOfBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, max, actual } = self;
        if *actual == 0 {
            write!(f, "is required: expected {min} to {max} characters")
        } else {
            write!(f, "has {actual} characters: expected {min} to {max}")
        }
    }
}

macro_rules! bounded_text {
    ($(#[$doc:meta])* $name:ident, $min:literal..=$max:literal, $shown:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text as it is, byte for byte.
            ///
            /// # Errors
            /// [`OutOfBounds`] if the length in characters is outside the bounds.
            pub fn new(text: impl Into<Arc<str>>) -> Result<Self, OutOfBounds> {
                let text = text.into();
                let actual = text.chars().count();
                if ($min..=$max).contains(&actual) {
                    Ok(Self(text))
                } else {
                    Err(OutOfBounds { min: $min, max: $max, actual })
                }
            }

            /// The text, byte for byte as it came.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let shown: fn(&str) -> &str = $shown;
                f.debug_tuple(stringify!($name)).field(&shown(&self.0)).finish()
            }
        }
    };
}

bounded_text! {
    /// Names an Amazon Connect instance: 1 to 100 characters.
    InstanceId, 1..=100, CLEAR
}
bounded_text! {
    /// Identifies a live contact: 1 to 256 characters. Connect counts it as personal data, so it is
    /// not printed.
    ContactId, 1..=256, REDACTED
}
bounded_text! {
    /// The name that the other participants see: 1 to 256 characters. Not printed.
    DisplayName, 1..=256, REDACTED
}
bounded_text! {
    /// The caller's idempotency key: 1 to 500 characters, compared byte for byte. Not printed.
    ClientToken, 1..=500, REDACTED
}
bounded_text! {
    /// The `ClientToken` that Connect gets, 1 to 500 characters: the same for all attempts of a
    /// call.
    UpstreamToken, 1..=500, REDACTED
}

impl InstanceId {
    /// Whether this is an ARN. Its last part, after `instance/`, is the id.
    #[must_use]
    pub(crate) fn is_arn(&self) -> bool {
        self.as_str().starts_with("arn:")
    }
}

/// The name of a tenant or an upstream: `[a-z0-9][a-z0-9-]{0,62}`. It fits into a label, a key and
/// a host name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The form of every name, as a regular expression.
    pub(crate) const PATTERN: &'static str = "^[a-z0-9][a-z0-9-]{0,62}$";

    /// The name; `None` if the text is not of the form [`Name::PATTERN`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=63).contains(&text.len())
            && !text.starts_with('-')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        fits.then(|| Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

const CLEAR: fn(&str) -> &str = |text| text;
const REDACTED: fn(&str) -> &str = |_| "[redacted]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_characters_and_not_bytes() {
        assert!(DisplayName::new("ü".repeat(256)).is_ok());
        assert_eq!(DisplayName::new("ü".repeat(257)).unwrap_err().actual, 257);
        assert!(DisplayName::new("").is_err());
    }

    #[test]
    fn what_is_personal_or_secret_is_not_printed() {
        let printed = format!(
            "{:?} {:?} {:?}",
            ContactId::new("canary-contact").unwrap(),
            ClientToken::new("canary-token").unwrap(),
            DisplayName::new("canary-name").unwrap(),
        );
        assert!(!printed.contains("canary"), "{printed}");
    }

    #[test]
    fn names_fit_a_host_name_label() {
        assert!(Name::parse("chat-2").is_some());
        assert!(Name::parse(&"a".repeat(63)).is_some());
        for bad in ["", "-chat", "Chat", "chat_2", "chät", &"a".repeat(64)] {
            assert!(Name::parse(bad).is_none(), "{bad} was taken");
        }
    }
}
