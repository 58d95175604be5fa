//! The problems of a config, in words that say what was expected.

use std::fmt;

use serde_json::Value;

/// One problem of a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's dotted path, such as `tenants.acme.rate`; empty for the file as a whole.
    pub path: String,
    /// The value of the key, where it has one.
    pub value: Option<String>,
    /// What was expected.
    pub expected: String,
}

impl Problem {
    /// A problem of the key at `path`.
    pub fn new(
        path: impl Into<String>,
        value: Option<&Value>,
        expected: impl Into<String>,
    ) -> Self {
        let value = value.map(|value| {
            let mut shown = value.clone();
            redact(&mut shown);
            shown.to_string()
        });
        Self { path: path.into(), value, expected: expected.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "config" } else { &self.path };
        match &self.value {
            Some(value) => write!(f, "{path}: {value}: expected {}", self.expected),
            None => write!(f, "{path}: expected {}", self.expected),
        }
    }
}

/// All problems of a config, in the order of their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds a problem, unless the same key already has one: the first problem is the cause.
    pub fn add(&mut self, problem: Problem) {
        if !self.0.iter().any(|known| known.path == problem.path) {
            self.0.push(problem);
        }
    }

    /// Whether there is no problem.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the key, or a key above or below it, has a problem. A consequence of that problem is
    /// then not reported.
    #[must_use]
    pub(crate) fn touch(&self, path: &str) -> bool {
        let below = |outer: &str, inner: &str| {
            inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.0.iter().any(|known| below(&known.path, path) || below(path, &known.path))
    }

    /// The problems, by path.
    #[must_use]
    pub fn sorted(mut self) -> Vec<Problem> {
        self.0.sort_by(|a, b| a.path.cmp(&b.path));
        self.0
    }

    /// The problems.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.clone().sorted().iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Hides the user information of every URL in the value. A password may stand in no other place of
/// the config.
pub(crate) fn redact(value: &mut Value) {
    match value {
        Value::String(text) => {
            // A scheme of ours marks a URL even where the slashes are mistyped. Any other scheme
            // needs the slashes.
            let url = text
                .split_once("://")
                .or_else(|| text.split_once(':').filter(|(scheme, _)| OF_OURS.contains(scheme)));
            if let Some((scheme, rest)) = url
                && let Some((_, host)) = rest.rsplit_once('@')
            {
                *text = format!("{scheme}://[redacted]@{host}");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(entries) => entries.values_mut().for_each(redact),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The schemes of URLs in the config.
const OF_OURS: [&str; 6] = ["redis", "rediss", "valkey", "valkeys", "http", "https"];
