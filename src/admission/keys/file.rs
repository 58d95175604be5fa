//! The two key files: one base64 key of 32 bytes per line. Every problem names its line.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{KEY_BYTES, Raw};

/// The file of `idempotency` that has a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyFile {
    /// `idempotency.root_key_file`.
    Root,
    /// `idempotency.sealing_keys_file`.
    Sealing,
}

/// Why a key file is refused. It never holds a byte of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct KeyProblem {
    pub(crate) file: KeyFile,
    /// What is wrong with it.
    pub(crate) fault: KeyFault,
}

/// The possible faults of a key file. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyFault {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::ErrorKind),
    /// There is no key in it.
    #[error("holds no key; `participant-gateway keygen` prints one")]
    Empty,
    /// The line is not base64.
    #[error("has a line {line} that is not standard base64 with its padding, {LINE_FORM}")]
    NotBase64 {
        /// The line.
        line: usize,
    },
    /// The line's key is too long or too short.
    #[error("has a line {line} of {bytes} bytes instead of {LINE_FORM}")]
    WrongLength {
        /// The line.
        line: usize,
        /// The number of bytes in it.
        bytes: usize,
    },
    /// A root file with a second key.
    #[error("has a line {line}, one key too many")]
    OneTooMany {
        /// The line.
        line: usize,
    },
    /// The line repeats an earlier one, so it is no rotation.
    #[error("has a line {line} that repeats the key of line {first}")]
    Repeated {
        /// The line.
        line: usize,
        /// The line where the key stood first.
        first: usize,
    },
    /// The cryptographic library failed.
    #[error("makes the cryptographic library fail")]
    Library,
}

pub(super) fn in_file(file: KeyFile) -> impl Fn(Vec<KeyFault>) -> Vec<KeyProblem> {
    move |faults| faults.into_iter().map(|fault| KeyProblem { file, fault }).collect()
}

pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, Vec<KeyFault>> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)
        .and_then(|file| file.take(FILE_MAX_BYTES).read_to_string(&mut text))
        .map_err(|error| vec![KeyFault::Unreadable(error.kind())])?;
    Ok(text)
}

pub(super) fn parse_root(text: &str) -> Result<Raw, Vec<KeyFault>> {
    let mut lines = key_lines(text);
    let (line, key) = lines.next().ok_or_else(|| vec![KeyFault::Empty])?;
    let key = parse_line(line, key);
    let too_many = lines.map(|(line, _)| KeyFault::OneTooMany { line });
    let faults: Vec<_> = key.as_ref().err().cloned().into_iter().chain(too_many).collect();
    key.ok().filter(|_| faults.is_empty()).ok_or(faults)
}

pub(super) fn parse_lines(text: &str) -> Result<Vec<Raw>, Vec<KeyFault>> {
    let mut keys: Vec<(usize, Raw)> = Vec::new();
    let mut faults = Vec::new();
    for (line, text) in key_lines(text) {
        match parse_line(line, text) {
            Ok(key) => match keys.iter().find(|(_, earlier)| *earlier == key) {
                Some(&(first, _)) => faults.push(KeyFault::Repeated { line, first }),
                None => keys.push((line, key)),
            },
            Err(fault) => faults.push(fault),
        }
    }
    if keys.is_empty() && faults.is_empty() {
        faults.push(KeyFault::Empty);
    }
    if faults.is_empty() { Ok(keys.into_iter().map(|(_, key)| key).collect()) } else { Err(faults) }
}

fn key_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty())
}

// base64's own error names the byte that it could not read, which is a part of the key.
fn parse_line(line: usize, text: &str) -> Result<Raw, KeyFault> {
    let bytes = STANDARD
        .decode(text)
        .map(Zeroizing::new)
        .map_err(|_| KeyFault::NotBase64 { line })?;
    match <[u8; KEY_BYTES]>::try_from(bytes.as_slice()) {
        Ok(key) => Ok(Zeroizing::new(key)),
        Err(_) => Err(KeyFault::WrongLength { line, bytes: bytes.len() }),
    }
}

const LINE_FORM: &str = "32 bytes in base64 (44 characters)";

/// More than a thousand keys: a longer file is no key file.
const FILE_MAX_BYTES: u64 = 64 * 1024;
