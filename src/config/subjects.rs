//! Finds the tenant of a subject: exactly, or by a pattern.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashMap;
use serde_json::json;

use super::problem::{Problem, Problems};
use super::shape::{Config, IdentityMode};
use crate::domain::{Name, Tenant};

/// The tenants by their subjects (docs/design/contract.md, "Patterns").
#[derive(Debug, Default)]
pub(super) struct Subjects {
    exact: HashMap<String, Arc<Tenant>>,
    /// The tenants of the patterns, by the text before the `*`.
    prefixes: HashMap<String, Arc<Tenant>>,
    /// The lengths of the prefixes, in bytes.
    lengths: BTreeSet<usize>,
}

impl Subjects {
    /// The subjects of a config without a problem.
    pub(super) fn new(config: &Config, tenants: &BTreeMap<Name, Arc<Tenant>>) -> Self {
        let mut subjects = Self::default();
        for tenant in tenants.values() {
            if are_names_subjects(config) {
                subjects.insert(tenant.name.as_str(), tenant);
            }
            let listed = config.tenants.get(tenant.name.as_str());
            for subject in listed.iter().flat_map(|listed| &listed.subjects) {
                subjects.insert(subject, tenant);
            }
        }
        subjects
    }

    fn insert(&mut self, subject: &str, tenant: &Arc<Tenant>) {
        match kind(subject) {
            Kind::Exact => {
                self.exact.insert(subject.to_owned(), Arc::clone(tenant));
            }
            Kind::Prefix(prefix) => {
                self.lengths.insert(prefix.len());
                self.prefixes.insert(prefix.to_owned(), Arc::clone(tenant));
            }
            Kind::Malformed => {}
        }
    }

    /// The tenant of a caller's subject: the tenant that has it exactly, or else the tenant with
    /// the longest matching pattern.
    pub(super) fn find(&self, subject: &str) -> Option<&Arc<Tenant>> {
        self.exact.get(subject).or_else(|| {
            let lengths = self.lengths.range(..=subject.len()).rev();
            lengths
                .filter_map(|length| subject.get(..*length))
                .find_map(|prefix| self.prefixes.get(prefix))
        })
    }
}

/// Adds every problem of the tenants' subjects: a missing subject, a misplaced `*`, or one subject
/// at two tenants.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    let names = config.tenants.keys().filter(|_| are_names_subjects(config));
    let mut owners: HashMap<&str, &str> = names.map(|name| (&**name, &**name)).collect();
    let are_required = !are_names_subjects(config) && !problems.touch("identity.mode");
    for (name, tenant) in &config.tenants {
        let path = format!("tenants.{name}.subjects");
        if are_required && tenant.subjects.is_empty() && !problems.touch(&path) {
            let expected = "at least one subject; it is required outside header mode";
            problems.add(Problem::new(&path, None, expected));
        }
        for (index, subject) in tenant.subjects.iter().enumerate() {
            let owner = *owners.entry(subject).or_insert(name);
            let expected = if subject.is_empty() {
                "a subject that is not empty".to_owned()
            } else if kind(subject) == Kind::Malformed {
                "a subject, or a pattern whose one * is its end and not all of it".to_owned()
            } else if owner != name {
                format!("a subject of one tenant only: tenants.{owner} has it, too")
            } else {
                continue;
            };
            problems.add(Problem::new(format!("{path}[{index}]"), Some(&json!(subject)), expected));
        }
    }
}

fn are_names_subjects(config: &Config) -> bool {
    config.identity.mode == Some(IdentityMode::Header)
}

/// The kind of a subject in the config.
#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    Exact,
    /// A pattern with this prefix.
    Prefix(&'a str),
    /// A `*` in a wrong place.
    Malformed,
}

/// A `*` may only be at the end, after at least one character.
fn kind(subject: &str) -> Kind<'_> {
    match subject.split_once('*') {
        None => Kind::Exact,
        Some((prefix, "")) if !prefix.is_empty() => Kind::Prefix(prefix),
        Some(_) => Kind::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Enforcement, Instances, Name, Rate, TenantLimits};

    fn tenant(name: &str) -> Arc<Tenant> {
        let rate = Rate::new(1.0).unwrap();
        let limits = TenantLimits {
            rate,
            burst: 1,
            committed: rate,
            max_in_flight: 1,
            enforcement: Enforcement::Enforce,
        };
        let name = Name::parse(name).unwrap();
        Arc::new(Tenant {
            name,
            instances: Instances::Any,
            roles: Default::default(),
            requires_client_token: false,
            limits,
        })
    }

    fn subjects(list: &[(&str, &str)]) -> Subjects {
        let mut subjects = Subjects::default();
        for (subject, name) in list {
            subjects.insert(subject, &tenant(name));
        }
        subjects
    }

    fn found<'a>(subjects: &'a Subjects, subject: &str) -> Option<&'a str> {
        subjects.find(subject).map(|tenant| tenant.name.as_str())
    }

    #[test]
    fn an_exact_subject_comes_before_a_pattern_and_the_longest_pattern_first() {
        let subjects = subjects(&[
            ("ns:*", "all"),
            ("ns:chat:*", "chat"),
            ("ns:chat:bot", "bot"),
            ("ns:chat:b*", "bees"),
        ]);
        for (subject, expected) in [
            ("ns:chat:bot", Some("bot")),
            ("ns:chat:bot2", Some("bees")),
            ("ns:chat:other", Some("chat")),
            ("ns:chat:", Some("chat")),
            ("ns:chat", Some("all")),
            ("ns:", Some("all")),
            ("ns", None),
            ("", None),
            ("xns:chat:bot", None),
        ] {
            assert_eq!(found(&subjects, subject), expected, "{subject}");
        }
    }

    #[test]
    fn a_callers_star_stands_for_itself() {
        let subjects = subjects(&[("ns:chat:*", "chat"), ("ns:voice:bot", "voice")]);
        assert_eq!(found(&subjects, "ns:chat:*"), Some("chat"));
        for subject in ["ns:voice:*", "ns:*", "*"] {
            assert_eq!(found(&subjects, subject), None, "{subject}");
        }
    }

    #[test]
    fn a_prefix_that_ends_inside_a_character_of_the_subject_does_not_match() {
        let subjects = subjects(&[("ab*", "two"), ("é*", "accent")]);
        assert_eq!(found(&subjects, "aé"), None);
        assert_eq!(found(&subjects, "éa"), Some("accent"));
    }

    #[test]
    fn a_star_is_only_allowed_at_the_end_after_a_character() {
        assert_eq!(kind("a"), Kind::Exact);
        assert_eq!(kind("a*"), Kind::Prefix("a"));
        for malformed in ["*", "**", "a**", "*a", "a*b", "a*b*"] {
            assert_eq!(kind(malformed), Kind::Malformed, "{malformed}");
        }
    }
}
