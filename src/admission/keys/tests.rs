use std::io::Write;

use super::*;

fn faults(root: Option<&str>, sealing: Option<&str>) -> Vec<(KeyFile, KeyFault)> {
    Keys::parse(root, sealing)
        .unwrap_err()
        .into_iter()
        .map(|p| (p.file, p.fault))
        .collect()
}

#[test]
fn a_generated_line_serves_in_either_file() {
    let line = keygen().unwrap();
    assert_eq!(line.len(), 44);
    assert_ne!(line, keygen().unwrap());
    Keys::parse(Some(&line), Some(&line)).unwrap();
}

#[test]
fn blank_lines_and_line_ends_of_any_kind_are_passed_over() {
    let plain = Keys::parse(Some(LINE), None).unwrap();
    let padded = Keys::parse(Some(&format!("\r\n\n  {LINE}\r\n\n")), None).unwrap();
    assert!(plain.same_root(&padded));
}

#[test]
fn every_problem_of_both_files_is_named_with_its_line() {
    let short = STANDARD.encode([7; 16]);
    let sealing = format!("{LINE}\n\nnot base64!\n{short}\n# a comment\n{LINE}\n");
    assert_eq!(
        faults(Some(&format!("{LINE}\n{OTHER}")), Some(&sealing)),
        [
            (KeyFile::Root, KeyFault::OneTooMany { line: 2 }),
            (KeyFile::Sealing, KeyFault::NotBase64 { line: 3 }),
            (KeyFile::Sealing, KeyFault::WrongLength { line: 4, bytes: 16 }),
            (KeyFile::Sealing, KeyFault::NotBase64 { line: 5 }),
            (KeyFile::Sealing, KeyFault::Repeated { line: 6, first: 1 }),
        ]
    );
    assert_eq!(faults(Some(" \n"), None), [(KeyFile::Root, KeyFault::Empty)]);
    assert_eq!(faults(None, Some("")), [(KeyFile::Sealing, KeyFault::Empty)]);
}

#[test]
fn padding_is_required_and_the_url_alphabet_is_refused() {
    for bad in [LINE.trim_end_matches('='), "__________________________________________8="] {
        assert_eq!(
            faults(Some(bad), None),
            [(KeyFile::Root, KeyFault::NotBase64 { line: 1 })],
            "{bad} was taken"
        );
    }
}

#[test]
fn files_are_read_and_what_cannot_be_read_is_said() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{LINE}").unwrap();
    let keys = Keys::load(Some(file.path()), None).unwrap();
    assert!(keys.same_root(&Keys::parse(Some(LINE), None).unwrap()));

    let absent = Path::new("/nowhere/key");
    file.write_all(b"!").unwrap();
    assert_eq!(
        Keys::load(Some(absent), Some(file.path())).unwrap_err().len(),
        2,
        "one file hides the other's problems"
    );
    let problems = Keys::load(Some(absent), Some(absent)).unwrap_err();
    assert_eq!(
        problems.iter().map(|p| p.file).collect::<Vec<_>>(),
        [KeyFile::Root, KeyFile::Sealing]
    );
    assert!(
        problems[0].to_string().contains("cannot be read: entity not found"),
        "{}",
        problems[0]
    );
}

#[test]
fn no_message_holds_a_part_of_a_key() {
    let canary = "canarycanarycanary-canary";
    let problems = Keys::parse(Some(canary), Some(canary)).unwrap_err();
    let printed =
        format!("{problems:?} {} {:?}", problems[0], Keys::parse(Some(LINE), Some(OTHER)).unwrap());
    assert!(
        !printed.contains("canary")
            && !printed.contains(&LINE[..6])
            && !printed.contains(&OTHER[..6]),
        "{printed}"
    );
}

#[test]
fn without_a_root_file_the_built_in_root_serves() {
    let built_in = Keys::parse(None, None).unwrap();
    assert!(
        built_in.same_root(&Keys::parse(None, Some(LINE)).unwrap()),
        "it must survive a restart"
    );
    assert!(!built_in.same_root(&Keys::parse(Some(LINE), None).unwrap()));
}

#[test]
fn every_purpose_has_a_key_of_its_own() {
    let keys = Keys::parse(Some(LINE), None).unwrap();
    let purposes =
        [HashUse::RecordName, HashUse::Fingerprint, HashUse::UpstreamToken, HashUse::RecordMac];
    let hashes: std::collections::HashSet<_> = purposes
        .map(|p| keys.hash(p, &[b"same"]).as_ref().to_vec())
        .into_iter()
        .collect();
    assert_eq!(hashes.len(), purposes.len());
}

#[test]
fn parts_cannot_trade_bytes_across_their_border() {
    let keys = Keys::parse(Some(LINE), None).unwrap();
    let hash = |parts: &[&[u8]]| keys.hash(HashUse::RecordName, parts).as_ref().to_vec();
    assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    assert_ne!(hash(&[b"ab", b""]), hash(&[b"ab"]));
}

const LINE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
