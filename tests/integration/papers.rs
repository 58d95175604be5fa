//! The documents: what refers to them resolves, and the tests and files that they name exist.
//!
//! Code refers to a document in one form: its path, a comma, and a heading in quotes or a letter in
//! parentheses, as in `docs/design/contract.md, "Network"`.

mod repository;
mod sentences;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path};

use repository::{Document, ROOTS, documents, is_of_slug, root, tests, texts};

#[test]
fn every_reference_from_code_to_a_document_resolves() {
    let documents = documents();
    let mut broken = Vec::new();
    let mut seen = 0;
    for (path, text) in texts() {
        let text = joined(&text);
        for reference in references(&text) {
            seen += 1;
            if let Err(why) = reference.resolves(&documents) {
                broken.push(format!("{path}: {reference:?} {why}"));
            }
        }
        for loose in loose_references(&text) {
            broken.push(format!("{path}: write docs/design/….md before the comma of {loose:?}"));
        }
    }
    assert!(seen > 20, "{seen} references: the search finds too few");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_link_between_documents_resolves() {
    let documents = documents();
    let mut broken = Vec::new();
    for (path, document) in &documents {
        for target in links(&document.text) {
            if ["http://", "https://", "mailto:"]
                .iter()
                .any(|scheme| target.starts_with(scheme))
            {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { beside(path, file) };
            let fine = match documents.get(&file) {
                Some(linked) => anchor.is_empty() || linked.has_anchor(anchor),
                None => anchor.is_empty() && root().join(&file).exists(),
            };
            if !fine {
                broken.push(format!("{path}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn readme_and_contributing_lead_to_the_design() {
    let documents = documents();
    for page in ["README.md", "CONTRIBUTING.md"] {
        let found = links(&documents[page].text).any(|link| link.starts_with("docs/design"));
        assert!(found, "{page} does not link docs/design");
    }
}

#[test]
fn the_readme_names_every_command_that_the_scripts_run() {
    let texts = texts();
    let readme: BTreeSet<_> = texts["README.md"].split(|c: char| !c.is_alphanumeric()).collect();
    let scripts = texts
        .iter()
        .filter(|(path, _)| path.starts_with("src/") && path.ends_with(".lua"));
    let calls = scripts.flat_map(|(_, text)| text.split("call('").skip(1));
    let commands: BTreeSet<_> =
        calls.map(|rest| rest.split('\'').next().unwrap().to_lowercase()).collect();
    assert!(commands.len() > 10, "{commands:?}");
    let missing: Vec<_> = commands.iter().filter(|one| !readme.contains(one.as_str())).collect();
    assert!(missing.is_empty(), "a user of Redis that lacks them is refused: {missing:?}");
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    let documents = documents();
    let text = &documents["docs/design/guarantees.md"].text;
    let tests = tests();
    let mut rows = 0;
    let mut shows = false;
    for line in text.lines() {
        let cells: Vec<_> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let last = cells.last().unwrap();
        if !line.starts_with('|') {
            shows = false;
        } else if last.ends_with("shown by") {
            shows = true;
        } else if shows && !last.starts_with("---") {
            rows += 1;
            let named: Vec<_> = code_spans(last).collect();
            assert!(!named.is_empty(), "no test: {line}");
            for name in named {
                assert!(tests.contains(name), "no test of the name {name}: {line}");
            }
        }
    }
    assert!(rows >= 40, "{rows} rows: the table is not read");
    for name in code_spans(text).filter(|name| name.matches('_').count() > 2) {
        assert!(tests.contains(name), "no test of the name {name}");
    }
}

#[test]
fn every_file_that_the_maps_name_exists() {
    let documents = documents();
    for map in ["docs/design/architecture.md", "CONTRIBUTING.md"] {
        let text = &documents[map].text;
        let words: BTreeSet<_> = text.split(|c: char| !is_of_path(c)).map(trimmed).collect();
        let is_file = |word: &str| word.ends_with(".rs") || word.ends_with(".lua");
        let paths = words.iter().filter(|word| {
            ROOTS.iter().any(|root| word.starts_with(&format!("{root}/"))) || is_file(word)
        });
        let missing: Vec<_> = paths.filter(|path| !root().join(path).exists()).collect();
        assert!(
            missing.is_empty(),
            "{map} names what is not there, or not by its whole path: {missing:?}"
        );
    }
}

#[test]
fn every_room_is_on_the_map() {
    let documents = documents();
    let text = &documents["docs/design/architecture.md"].text;
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let room = format!("src/{}", path.file_stem().unwrap().to_str().unwrap());
        assert!(text.contains(&room), "{room} is not on the map of architecture.md");
    }
}

#[test]
fn prose_is_wrapped_at_100_columns() {
    let mut long = Vec::new();
    for (path, document) in documents() {
        // Generated, and laid out by helm-docs.
        if path == "helm/participant-gateway/README.md" {
            continue;
        }
        for (number, line) in document.prose() {
            if line.chars().count() > COLUMNS && !is_unbreakable(line) {
                long.push(format!("{path}:{number}"));
            }
        }
    }
    assert!(long.is_empty(), "longer than {COLUMNS} columns: {long:?}");
}

/// What a text says of a document.
#[derive(Debug)]
struct Reference {
    file: String,
    part: Part,
}

#[derive(Debug)]
enum Part {
    Whole,
    Anchor(String),
    Heading(String),
    /// An item of a list, such as `(a)`.
    Item(String),
}

impl Reference {
    fn resolves(&self, documents: &BTreeMap<String, Document>) -> Result<(), String> {
        let document = documents.get(&self.file).ok_or("is no file")?;
        let (there, missing) = match &self.part {
            Part::Whole => (true, String::new()),
            Part::Anchor(anchor) => (document.has_anchor(anchor), format!("#{anchor}")),
            Part::Heading(heading) => {
                (document.headings().any(|one| one == heading), format!("heading {heading:?}"))
            }
            Part::Item(item) => {
                (document.text.lines().any(|line| line.starts_with(item)), format!("item {item}"))
            }
        };
        if there { Ok(()) } else { Err(format!("has no {missing}")) }
    }
}

/// Every `docs/….md` in the text, with what follows it.
fn references(text: &str) -> impl Iterator<Item = Reference> {
    text.match_indices("docs/").filter_map(|(at, _)| {
        let path: String = text[at..].chars().take_while(|c| is_of_path(*c)).collect();
        let end = path.find(".md")? + ".md".len();
        let file = path[..end].to_owned();
        let after = &text[at + end..];
        let part = if let Some(rest) = after.strip_prefix('#') {
            let anchor: String = rest.chars().take_while(|c| is_of_slug(*c)).collect();
            if anchor.is_empty() { Part::Whole } else { Part::Anchor(anchor) }
        } else if let Some((heading, _)) =
            after.strip_prefix(", \"").and_then(|rest| rest.split_once('"'))
        {
            Part::Heading(heading.to_owned())
        } else if let Some((letter, _)) =
            after.strip_prefix(", (").and_then(|rest| rest.split_once(')'))
        {
            Part::Item(format!("- ({letter})"))
        } else {
            Part::Whole
        };
        Some(Reference { file, part })
    })
}

/// What names a page of docs/design and a part of it, without the path in front.
fn loose_references(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let pages = ["contract", "admission", "architecture", "guarantees", "performance"];
    let mut found = Vec::new();
    for page in pages {
        for follows in [", \"", ".md, \"", ", (a)", ".md, (a)"] {
            let form = format!("{page}{follows}");
            for (at, _) in lower.match_indices(&form) {
                if !lower[..at].ends_with("docs/design/") {
                    found.push(form.clone());
                }
            }
        }
    }
    found
}

/// The text without the marks of comments and without line ends, so that a reference may be broken
/// over lines.
fn joined(text: &str) -> String {
    let marks = |line: &str| {
        let line = line.trim();
        let marked =
            ["//!", "///", "//", "--", "#"].iter().find_map(|mark| line.strip_prefix(mark));
        marked.unwrap_or(line).trim().to_owned()
    };
    text.lines().map(marks).collect::<Vec<_>>().join(" ")
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
}

fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The path from the root of a file that another names from where it stands.
fn beside(path: &str, file: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in Path::new(file).components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(name) => parts.push(name.to_str().unwrap()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    parts.join("/")
}

/// Tables, and lines of one word such as an address.
fn is_unbreakable(line: &str) -> bool {
    line.starts_with('|') || line.split_whitespace().filter(|word| word.len() > 2).count() < 2
}

fn trimmed(word: &str) -> &str {
    word.trim_matches(['.', '/', '-'])
}

fn is_of_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-')
}

const COLUMNS: usize = 100;
