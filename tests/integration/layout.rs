//! Who may import whom: the list stands in `src/lib.rs`, and is held here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The modules' files, by top-level module, with what stands before their tests.
fn modules() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut modules: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let text = without_tests(&text);
        let first = file.strip_prefix(&src).unwrap().components().next().unwrap();
        let module = Path::new(&first).file_stem().unwrap().to_string_lossy().into_owned();
        modules.entry(module).or_default().push((file, text));
    }
    modules
}

/// The text without what only tests compile: a module in the file, which stands at its end, or the
/// name of one in another.
fn without_tests(text: &str) -> String {
    let mut parts = text.split("#[cfg(test)]");
    let mut kept = parts.next().unwrap().to_owned();
    for part in parts {
        let item = part.trim_start();
        match item.split_once('\n') {
            Some((line, rest)) if line.ends_with(';') => kept.push_str(rest),
            _ => break,
        }
    }
    kept
}

/// The rules as `src/lib.rs` states them: `module  allowed, allowed, …`.
fn rules() -> BTreeMap<String, BTreeSet<String>> {
    let lib = include_str!("../../src/lib.rs");
    let table = lib.split("Who may import whom").nth(1).unwrap().split("```").nth(1).unwrap();
    let row = |line: &str| {
        let (module, allowed) =
            line.trim_start_matches("//!").trim().split_once(char::is_whitespace)?;
        let allowed = match allowed.trim() {
            "everything" => return None,
            nothing if nothing.starts_with("nothing") => BTreeSet::new(),
            list => list.split(',').map(|name| name.trim().to_owned()).collect(),
        };
        Some((module.to_owned(), allowed))
    };
    table.lines().filter_map(row).collect()
}

fn imports(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let names = code.flat_map(|line| {
        line.match_indices("crate::").map(move |(at, found)| &line[at + found.len()..])
    });
    names
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn modules_import_only_what_the_list_allows() {
    let rules = rules();
    assert!(rules.len() >= 8, "{rules:?}");
    let modules = modules();
    for (module, allowed) in &rules {
        for (file, text) in modules.get(module).into_iter().flatten() {
            for import in imports(text) {
                let fine = import == *module || allowed.contains(&import);
                assert!(fine, "{} imports {import}, and {module} may not", file.display());
            }
        }
    }
}

#[test]
fn only_their_own_modules_name_the_large_libraries() {
    for (library, homes) in [
        ("tonic::", &["grpc", "app", "proto"][..]),
        ("aws_sdk_connect::", &["connect"]),
        ("aws_config::", &["connect"]),
        ("redis::", &["admission"]),
        ("opentelemetry::", &["telemetry"]),
        ("opentelemetry_sdk::", &["telemetry"]),
        ("prometheus::", &["telemetry"]),
        ("prometheus_client::", &["telemetry"]),
    ] {
        for (module, files) in modules() {
            for (file, text) in files {
                let named = text
                    .lines()
                    .any(|line| !line.trim_start().starts_with("//") && names(line, library));
                let allowed = homes.contains(&module.as_str());
                assert!(!named || allowed, "{} names {library}", file.display());
            }
        }
    }
}

/// The library at the start of a path, not as a module of that name further in.
fn names(line: &str, library: &str) -> bool {
    line.match_indices(library).any(|(at, _)| {
        !line[..at]
            .ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
    })
}

#[test]
fn no_file_is_too_long_to_read() {
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    assert!(files.len() > 100, "{files:?}");
    for file in files {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 500, "{} has {lines} lines: split it by topic", file.display());
    }
}

/// The types that a file declares for others, by name. The file's own shape of the config and the
/// simulator are worlds of their own.
fn shared_types() -> BTreeMap<String, BTreeSet<String>> {
    let mut types: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, files) in modules() {
        for (file, text) in files {
            let path = file.to_string_lossy().into_owned();
            let is_test = path.contains("/tests");
            if module == "simulator" || path.contains("config/shape") || is_test {
                continue;
            }
            for line in text.lines() {
                let Some(line) = shared(line) else { continue };
                let kinds = ["struct ", "enum ", "trait ", "type "];
                let Some(rest) = kinds.iter().find_map(|kind| line.strip_prefix(kind)) else {
                    continue;
                };
                let name = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
                types.entry(name).or_default().insert(path.clone());
            }
        }
    }
    types
}

/// An item that other modules may name, without its visibility.
fn shared(line: &str) -> Option<&str> {
    let visibilities = ["pub ", "pub(crate) ", "pub(super) "];
    visibilities.iter().find_map(|visibility| line.strip_prefix(visibility))
}

#[test]
fn a_shared_name_means_one_thing() {
    let types = shared_types();
    let several: Vec<_> = types.iter().filter(|(_, files)| files.len() > 1).collect();
    for (name, files) in &several {
        let is_pair = PAIRS.contains(&name.as_str()) && files.len() == 2;
        assert!(is_pair, "{name} is declared in {files:?}");
    }
    assert_eq!(several.len(), PAIRS.len(), "a pair that is none any more: {several:?}");
}

/// What a file does comes first; its figures stand at its end, each with its reason.
#[test]
fn constants_stand_last() {
    let starts = |line: &str, words: &[&str]| {
        let line = line.strip_prefix("pub").unwrap_or(line);
        let line = line.strip_prefix("(super)").or(line.strip_prefix("(crate)")).unwrap_or(line);
        words
            .iter()
            .any(|word| line.trim_start().starts_with(word) && !line.contains("const fn"))
    };
    let mut early = Vec::new();
    for (file, text) in modules().into_values().flatten() {
        let mut constant = None;
        for (number, line) in text.lines().enumerate() {
            if starts(line, &["const ", "static "]) && !line.starts_with(' ') {
                constant.get_or_insert(number + 1);
            } else if starts(line, &["fn ", "async fn ", "impl", "struct ", "enum ", "trait "])
                && !line.starts_with(' ')
                && let Some(number) = constant
            {
                early.push(format!("{}:{number}", file.display()));
                break;
            }
        }
    }
    assert_eq!(early, [""; 0], "a constant with code below it");
}

#[test]
fn the_functions_on_a_calls_path_fit_a_screen() {
    let path = ["grpc", "gateway", "connect", "app"];
    let tables = ["table.rs", "app.rs"];
    for (module, files) in modules() {
        for (file, text) in files {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            if !path.contains(&module.as_str()) || tables.contains(&name.as_str()) {
                continue;
            }
            let lines: Vec<_> = text.lines().collect();
            for (start, line) in lines.iter().enumerate() {
                let code = line.trim_start();
                let indent = &line[..line.len() - code.len()];
                if !(code.contains("fn ") && code.contains('(')) || code.starts_with("//") {
                    continue;
                }
                let end = lines[start..].iter().position(|line| *line == format!("{indent}}}"));
                let length = end.map_or(0, |end| end + 1);
                assert!(length <= 60, "{}:{}: {length} lines", file.display(), start + 1);
            }
        }
    }
}

/// One thing in two rooms: its settings and itself, or itself and its face to another room.
const PAIRS: [&str; 7] = ["Identity", "Jwt", "OnLoss", "Place", "Span", "Store", "TlsFiles"];
