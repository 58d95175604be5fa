//! The texts of the repository, as the tests of the documents read them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A Markdown file.
pub struct Document {
    pub text: String,
}

impl Document {
    pub fn headings(&self) -> impl Iterator<Item = &str> {
        let headings = self.prose().filter(|(_, line)| line.starts_with('#'));
        headings.map(|(_, line)| line.trim_start_matches('#').trim())
    }

    /// As GitHub makes anchors of headings.
    pub fn has_anchor(&self, anchor: &str) -> bool {
        self.headings().any(|heading| {
            let lower = heading.to_lowercase().replace(' ', "-");
            lower.chars().filter(|c| is_of_slug(*c)).collect::<String>() == anchor
        })
    }

    /// The lines outside of code blocks, by their numbers.
    pub fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut in_code = false;
        self.text.lines().enumerate().filter_map(move |(index, line)| {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
                return None;
            }
            (!in_code).then_some((index + 1, line))
        })
    }
}

/// Every Markdown file of the repository, by its path from the root.
pub fn documents() -> BTreeMap<String, Document> {
    let markdown = texts().into_iter().filter(|(path, _)| path.ends_with(".md"));
    markdown.map(|(path, text)| (path, Document { text })).collect()
}

/// Every text of the repository that a person writes, by its path from the root.
pub fn texts() -> BTreeMap<String, String> {
    let mut files: Vec<_> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    for folder in ROOTS {
        walk(&root().join(folder), &mut files);
    }
    let mut texts = BTreeMap::new();
    for file in files {
        let path = file.strip_prefix(root()).unwrap();
        let extension = file.extension().and_then(|extension| extension.to_str());
        let is_text = extension.map_or(path.ends_with("Makefile"), |one| TEXTS.contains(&one));
        if is_text {
            texts.insert(path.to_str().unwrap().to_owned(), fs::read_to_string(&file).unwrap());
        }
    }
    texts
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !NOT_OURS.contains(&name) && !name.starts_with('.') {
            walk(&path, files);
        } else if path.is_file() {
            files.push(path);
        }
    }
}

/// The names of all tests: functions with a test's attribute, and the cases of the stores' contract.
pub fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, text) in texts().into_iter().filter(|(path, _)| path.ends_with(".rs")) {
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some((_, rest)) = line.split_once("fn ") {
                if is_test {
                    names.insert(rest.chars().take_while(|c| is_of_name(*c)).collect());
                }
                is_test = false;
            }
        }
        for cases in text.split("store_contract! {").skip(1) {
            let (cases, _) = cases.split_once('}').unwrap();
            names.extend(cases.split(',').map(|case| case.trim().to_owned()));
        }
    }
    names
}

pub fn is_of_slug(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-')
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where people write.
pub const ROOTS: [&str; 9] =
    ["src", "tests", "docs", "proto", "helm", "tools", "fuzz", "examples", "benches"];
const TEXTS: [&str; 11] =
    ["rs", "lua", "proto", "md", "gotmpl", "tpl", "toml", "yaml", "yml", "sh", "py"];

/// Built, fetched or vendored folders within.
const NOT_OURS: [&str; 6] = ["target", "node_modules", "venv", "golden", "google", "build"];
