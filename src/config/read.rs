//! Turns the text and the environment into the typed shape, and reports every problem on the way.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::problem::{Problem, Problems};
use super::shape::Config;

/// The file and the environment, not yet typed.
#[derive(Debug)]
pub(crate) struct Tree {
    pub value: Value,
    /// The raw text of each override, by its dotted path. Where a key wants a text, `123` from the
    /// environment is one.
    overrides: BTreeMap<String, String>,
}

/// Reads the YAML text and lays the environment's overrides over it.
pub(crate) fn tree(
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
    problems: &mut Problems,
) -> Result<Tree, Problems> {
    let mut value = serde_saphyr::from_str::<Option<Value>>(text)
        .map_err(|error| not_yaml(&error))?
        .unwrap_or_else(|| Value::Object(Map::new()));
    if !value.is_object() {
        return Err(Problem::new("", Some(&value), "a mapping of sections").into());
    }
    // The outer keys come first, whatever the order of the environment. An inner key then changes
    // the value that an outer key has set.
    let mut named: BTreeMap<(usize, Vec<String>), String> = BTreeMap::new();
    for (name, raw) in environment {
        let Some(keys) = name.strip_prefix(ENV_PREFIX) else { continue };
        let keys: Vec<String> = keys.split("__").map(str::to_lowercase).collect();
        let path = keys.join(".");
        if named.insert((keys.len(), keys), raw).is_some() {
            problems.add(Problem::new(
                path,
                None,
                "one override of this key: it is set in upper and in lower case",
            ));
        }
    }
    let mut overrides = BTreeMap::new();
    for ((_, keys), raw) in named {
        let path = keys.join(".");
        if raw.contains(char::REPLACEMENT_CHARACTER) {
            problems.add(Problem::new(path, None, "a value in UTF-8"));
            continue;
        }
        let parsed =
            serde_saphyr::from_str::<Value>(&raw).unwrap_or_else(|_| Value::String(raw.clone()));
        match insert(&mut value, &keys, parsed) {
            Ok(()) => {
                overrides.insert(path, raw);
            }
            Err(expected) => problems.add(Problem::new(path, Some(&Value::String(raw)), expected)),
        }
    }
    Ok(Tree { value, overrides })
}

/// Types the tree. Serde stops at the first error. Each bad key is therefore recorded and left out.
/// The rest is read again, until only good keys are left.
pub(crate) fn shape(tree: Tree, problems: &mut Problems) -> Result<Config, Problems> {
    let Tree { mut value, mut overrides } = tree;
    let mut left_out = LeftOut::default();
    loop {
        let error = match serde_path_to_error::deserialize::<_, Config>(&value) {
            Ok(config) => return Ok(config),
            Err(error) => error,
        };
        let segments: Vec<String> = error.path().iter().map(ToString::to_string).collect();
        let path = error.path().to_string();
        let message = error.inner().to_string();
        let (segments, path) = match unknown_key(&message) {
            // Serde's path ends with the mapping in some places and with the key in others.
            Some(key) if segments.last().is_none_or(|last| last != key) => {
                let path =
                    if segments.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                ([segments, vec![key.to_owned()]].concat(), path)
            }
            _ => (segments, path),
        };
        if unknown_key(&message).is_none()
            && let Some(found) = find(&mut value, &segments).filter(|found| found.is_null())
            && !segments.is_empty()
        {
            // An empty mapping, as in `tls:`, means its default. Required keys of an empty tenant
            // are still reported.
            if message.contains("expected a mapping") {
                *found = Value::Object(Map::new());
            } else {
                let _ = remove(&mut value, &segments);
            }
            continue;
        }
        // The key wants a word. Given a text, the next error lists the words that are allowed.
        if message.ends_with("expected string or map")
            && let Some(found) = find(&mut value, &segments).filter(|found| !found.is_string())
        {
            *found = Value::String(found.to_string());
            continue;
        }
        // The key wants a list. The items of one text have commas between them.
        if message.ends_with("expected a sequence")
            && let Some(raw) = overrides.get(&path).filter(|raw| !raw.trim().starts_with('['))
            && let Some(found) = find(&mut value, &segments).filter(|found| !found.is_array())
        {
            *found = listed(raw);
            continue;
        }
        if let Some(raw) = overrides.remove(&path)
            && let Some(found) = find(&mut value, &segments)
            && !found.is_string()
        {
            *found = Value::String(raw);
            continue;
        }
        let Some(removed) = remove(&mut value, &segments) else {
            problems.add(Problem::new(path, None, message));
            return Err(std::mem::take(problems));
        };
        let shown = match unknown_key(&message) {
            Some(key) => misplaced(key, removed),
            None => Some(removed),
        };
        problems.add(Problem::new(
            left_out.original(&segments),
            shown.as_ref(),
            expectation(&message),
        ));
    }
}

/// Turns `a, b` into a list of texts.
fn listed(raw: &str) -> Value {
    let items = raw.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| Value::String(item.to_owned())).collect()
}

/// The part of an unknown key's value that is shown. A value that looks like a secret is hidden,
/// and so is a mapping, which may hold one.
fn misplaced(key: &str, value: Value) -> Option<Value> {
    let key = key.to_lowercase();
    match value {
        Value::Object(_) | Value::Array(_) => None,
        _ if SECRETS.iter().any(|word| key.contains(word)) => {
            Some(Value::String("[redacted]".to_owned()))
        }
        value => Some(value),
    }
}

/// The list elements that were left out so far. The elements behind them have moved up, but
/// reported paths must keep the original positions.
#[derive(Default)]
struct LeftOut(HashMap<Vec<String>, Vec<usize>>);

impl LeftOut {
    fn original(&mut self, segments: &[String]) -> String {
        let mut shown = String::new();
        for (depth, segment) in segments.iter().enumerate() {
            let Some(index) = index(segment) else {
                if !shown.is_empty() {
                    shown.push('.');
                }
                shown.push_str(segment);
                continue;
            };
            let gone = self.0.entry(segments[..depth].to_vec()).or_default();
            let original =
                gone.iter().fold(index, |at, gone| if *gone <= at { at + 1 } else { at });
            if depth + 1 == segments.len() {
                gone.push(original);
                gone.sort_unstable();
            }
            shown.push_str(&format!("[{original}]"));
        }
        shown
    }
}

fn index(segment: &str) -> Option<usize> {
    segment.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn find<'a>(value: &'a mut Value, segments: &[String]) -> Option<&'a mut Value> {
    segments.iter().try_fold(value, |value, segment| match value {
        Value::Object(map) => map.get_mut(segment),
        Value::Array(items) => items.get_mut(index(segment)?),
        _ => None,
    })
}

fn remove(value: &mut Value, segments: &[String]) -> Option<Value> {
    let (last, parents) = segments.split_last()?;
    match find(value, parents)? {
        Value::Object(map) => map.remove(last),
        Value::Array(items) => {
            let index = index(last).filter(|index| *index < items.len())?;
            Some(items.remove(index))
        }
        _ => None,
    }
}

fn insert(value: &mut Value, keys: &[String], new: Value) -> Result<(), &'static str> {
    let Some((key, rest)) = keys.split_first() else {
        *value = new;
        return Ok(());
    };
    if key.is_empty() {
        return Err("two underscores between the keys of an override, and a key on each side");
    }
    match value {
        Value::Object(map) => {
            insert(map.entry(key.clone()).or_insert_with(|| Value::Object(Map::new())), rest, new)
        }
        _ => Err("the override of a key below a mapping"),
    }
}

/// Reports where the text stops being YAML. The parser's own message is not used: it quotes lines,
/// and a secret may stand there.
fn not_yaml(error: &serde_saphyr::Error) -> Problem {
    let place = error
        .location()
        .map_or_else(String::new, |at| format!(" at line {}, column {}", at.line(), at.column()));
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default();
    let why = if first.contains("uplicate") {
        "a key stands there twice"
    } else if first.contains("multiple YAML documents") {
        "a second document begins"
    } else {
        "it cannot be read"
    };
    Problem::new("", None, format!("one YAML document, but {why}{place}"))
}

fn unknown_key(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field `")?.split('`').next()
}

/// The part of serde's message that says what was expected.
fn expectation(message: &str) -> String {
    let expected = message.split_once("expected ").map_or(message, |(_, expected)| expected);
    let expected = expected.replace('`', "");
    let expected = match expected.as_str() {
        "a sequence" => "a list (in the environment: JSON, or one text with commas)".to_owned(),
        "a map" => "a mapping".to_owned(),
        "f64" => "a number".to_owned(),
        _ => expected,
    };
    match unknown_key(message) {
        Some(_) if message.contains("there are no fields") => "no such key".to_owned(),
        Some(_) => format!("a known key: {expected}"),
        None => expected,
    }
}

/// The prefix of an override's name.
pub(crate) const ENV_PREFIX: &str = "PARTICIPANT_GATEWAY__";

/// Words in the names of unknown keys whose values are not shown.
const SECRETS: [&str; 6] = ["pass", "secret", "token", "key", "auth", "credential"];
