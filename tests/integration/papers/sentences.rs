//! The length of the documents' sentences: CONTRIBUTING.md, "Style".

use super::repository::{Document, documents};

#[test]
fn a_sentence_of_the_documents_has_20_words_at_most() {
    let mut seen = 0;
    let mut long = Vec::new();
    for (path, document) in documents() {
        for (line, paragraph) in paragraphs(&document) {
            for sentence in sentences(&plain(&paragraph)) {
                seen += 1;
                if words(sentence) > WORDS {
                    long.push(format!("{path}:{line}: {sentence}"));
                }
            }
        }
    }
    assert!(seen > 1_000, "{seen} sentences: the search finds too few");
    assert!(long.is_empty(), "more than {WORDS} words:\n{}", long.join("\n"));
}

#[test]
fn a_sentence_ends_at_a_stop_a_colon_or_a_semicolon() {
    let text = plain("One `a. b` [two](c.md): three (four.) Five 0.5; six");
    let found: Vec<_> =
        sentences(&text).map(|sentence| (sentence.trim(), words(sentence))).collect();
    assert_eq!(found, [("One X two:", 3), ("three (four.)", 2), ("Five 0.5;", 2), ("six", 1)]);
}

/// Paragraphs and items of lists, each with the number of its first line. Tables and headings are
/// none.
fn paragraphs(document: &Document) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut last = None;
    for (number, line) in document.prose() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['|', '#', '<']) {
            last = None;
            continue;
        }
        match (found.last_mut(), item(line)) {
            (Some((_, text)), None) if last == Some(number - 1) => {
                text.push(' ');
                text.push_str(line);
            }
            (_, text) => found.push((number, text.unwrap_or(line).to_owned())),
        }
        last = Some(number);
    }
    found
}

/// The text of a list's item, where the line begins one.
fn item(line: &str) -> Option<&str> {
    let (mark, rest) = line.split_once(' ')?;
    let is_number = mark.ends_with('.') && mark[..mark.len() - 1].parse::<u32>().is_ok();
    (["-", "*"].contains(&mark) || is_number).then_some(rest)
}

/// A code span counts as one word, a link as its text.
fn plain(paragraph: &str) -> String {
    let parts = paragraph.split('`').enumerate();
    let text: String = parts.map(|(at, part)| if at % 2 == 0 { part } else { "X" }).collect();
    let mut links = text.split("](");
    let first = links.next().unwrap_or_default().to_owned();
    let text =
        links.fold(first, |text, link| text + link.split_once(')').map_or(link, |(_, rest)| rest));
    text.replace('[', "")
}

fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let is_end = |at: usize| {
        let rest = text[at + 1..].trim_start_matches([')', ']', '"', '*', '_']);
        rest.starts_with([' ', ',']).then(|| text.len() - rest.len())
    };
    let ends = text
        .match_indices(['.', '!', '?', ':', ';'])
        .filter_map(move |(at, _)| is_end(at));
    let mut from = 0;
    ends.chain([text.len()]).map(move |end| {
        let sentence = &text[from..end];
        from = end;
        sentence
    })
}

fn words(sentence: &str) -> usize {
    sentence
        .split_whitespace()
        .filter(|word| word.contains(char::is_alphanumeric))
        .count()
}

const WORDS: usize = 20;
