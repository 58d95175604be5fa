//! The entries of `identity.jwt`: whose tokens are accepted, and where their keys are.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::json;

use super::{add, require};
use crate::config::problem::{Problem, Problems};
use crate::config::shape::{Algorithm, JwtIdentity};
use crate::config::values::OneOrMany;

/// The rules for the bearer tokens of one issuer, and the source of the keys that verify them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// The `iss` that a token must have. `None`: any `iss` that no other entry has, or no `iss`.
    pub issuer: Option<String>,
    /// The accepted audiences, at least one. A token must have one of them.
    pub audiences: Vec<String>,
    /// The claim that holds the audience.
    pub audience_claim: String,
    /// The claim that holds the subject.
    pub subject_claim: String,
    /// The signature algorithms that are accepted; at least one, all of them asymmetric.
    pub algorithms: Vec<Algorithm>,
    /// The source of the key set.
    pub keys: KeySource,
}

/// The source of a JSON Web Key Set (RFC 7517, section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Fetched from an `http://` or `https://` URL.
    Url(http::Uri, Access),
    /// Fetched from the URL that the issuer's discovery document names.
    Discovery(Discovery, Access),
    /// Read from a file, again after each change.
    File(PathBuf),
}

/// Where an issuer's discovery document is (OpenID Connect Discovery 1.0, section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// The `issuer` that the document must have, byte for byte.
    pub issuer: String,
    /// The URL of the document.
    pub document: http::Uri,
}

/// The credentials and the trust for the server of a key set. Both files are read at each fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Certificate authorities, PEM, that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The file of a bearer token.
    pub(crate) token_file: Option<PathBuf>,
}

impl Discovery {
    /// The discovery of this issuer. `None` unless it is an `http://` or `https://` URL without
    /// user information, query and fragment. One `/` at its end is dropped.
    #[must_use]
    pub fn of(issuer: &str) -> Option<Self> {
        if issuer.contains(['?', '#']) || !issuer.parse().is_ok_and(|uri| is_fetchable(&uri)) {
            return None;
        }
        let base = issuer.strip_suffix('/').unwrap_or(issuer);
        let document = format!("{base}/.well-known/openid-configuration").parse().ok()?;
        Some(Self { issuer: issuer.to_owned(), document })
    }
}

/// Whether it is an `http://` or `https://` URL without user information.
#[must_use]
pub(crate) fn is_fetchable(uri: &http::Uri) -> bool {
    let scheme = uri.scheme_str().is_some_and(|scheme| matches!(scheme, "http" | "https"));
    let named = uri.host().is_some_and(|host| !host.is_empty());
    scheme && named && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
}

/// The entries. Adds the problems that it finds.
pub(super) fn resolve(
    entries: &OneOrMany<JwtIdentity>,
    problems: &mut Problems,
    warnings: &mut Vec<Problem>,
) -> Option<Vec<Jwt>> {
    let mut issuers: HashMap<Option<&str>, String> = HashMap::new();
    let mut resolved = Vec::new();
    for (place, entry) in entries.iter() {
        let mut check = Check { path: format!("identity.jwt{place}"), problems, warnings };
        let path = check.at("issuer");
        if let Some(other) = issuers.insert(entry.issuer.as_deref(), path.clone()) {
            let expected = match entry.issuer {
                Some(_) => format!("an issuer of one entry only: {other} is the same"),
                None => format!("an issuer: only one entry may be without, and {other} is absent"),
            };
            let value = entry.issuer.as_ref().map(|issuer| json!(issuer));
            check.problems.add(Problem::new(path, value.as_ref(), expected));
        }
        resolved.push(check.entry(entry));
    }
    if resolved.is_empty() && !problems.touch("identity.jwt") {
        add(problems, "identity.jwt", json!([]), "at least one entry");
    }
    resolved.into_iter().collect()
}

struct Check<'a> {
    path: String,
    problems: &'a mut Problems,
    warnings: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    fn entry(&mut self, jwt: &JwtIdentity) -> Option<Jwt> {
        let issuer = match jwt.issuer.as_deref() {
            None => Some(None),
            Some(_) => {
                let expected = "the `iss` that tokens must have";
                self.text(jwt.issuer.as_deref(), "issuer", expected).map(Some)
            }
        };
        let audiences = self.audiences(jwt.audience.as_ref());
        let audience_claim =
            self.text(Some(&jwt.audience_claim.0), "audience_claim", "a claim's name such as aud");
        let subject_claim =
            self.text(Some(&jwt.subject_claim.0), "subject_claim", "a claim's name such as sub");
        let path = self.at("algorithms");
        if jwt.algorithms.0.is_empty() && !self.problems.touch(&path) {
            add(self.problems, &path, json!([]), "at least one, such as RS256");
        }
        let keys = self.keys(jwt);
        Some(Jwt {
            issuer: issuer?,
            audiences: audiences?,
            audience_claim: audience_claim?,
            subject_claim: subject_claim?,
            algorithms: jwt.algorithms.0.clone(),
            keys: keys?,
        })
    }

    fn audiences(&mut self, audiences: Option<&OneOrMany<String>>) -> Option<Vec<String>> {
        let (path, expected) = (self.at("audience"), "an audience that tokens may have");
        let Some(audiences) = audiences else {
            require(self.problems, &path, expected);
            return None;
        };
        let mut named = Vec::new();
        for (place, audience) in audiences.iter() {
            named.push(self.text(Some(audience), &format!("audience{place}"), expected));
        }
        if named.is_empty() && !self.problems.touch(&path) {
            add(self.problems, &path, json!([]), "at least one audience");
        }
        named.into_iter().collect()
    }

    fn keys(&mut self, jwt: &JwtIdentity) -> Option<KeySource> {
        let access = self.access(jwt);
        match (&jwt.jwks_url, &jwt.jwks_file) {
            (Some(url), None) => {
                let uri = url.parse::<http::Uri>().ok().filter(is_fetchable);
                if uri.is_none() {
                    let expected =
                        "a URL that begins with http:// or https://, without user information";
                    add(self.problems, &self.at("jwks_url"), json!(url), expected);
                }
                let uri = uri?;
                self.judge_plaintext(&uri, &access);
                Some(KeySource::Url(uri, access?))
            }
            (None, Some(file)) => {
                for (key, value) in
                    [("jwks_ca_file", &jwt.jwks_ca_file), ("jwks_token_file", &jwt.jwks_token_file)]
                {
                    if let Some(value) = value {
                        let expected = "no such key beside jwks_file: it is for a key set's server";
                        add(self.problems, &self.at(key), json!(value), expected);
                    }
                }
                self.file(Some(file), "jwks_file")?.map(KeySource::File)
            }
            (Some(_), Some(file)) => {
                let expected = "only one of jwks_url and jwks_file";
                add(self.problems, &self.at("jwks_file"), json!(file), expected);
                None
            }
            (None, None) => {
                let discovery = self.discovery(jwt.issuer.as_deref())?;
                self.judge_plaintext(&discovery.document, &access);
                Some(KeySource::Discovery(discovery, access?))
            }
        }
    }

    fn discovery(&mut self, issuer: Option<&str>) -> Option<Discovery> {
        let path = self.at("issuer");
        let left_out = [self.at("jwks_url"), self.at("jwks_file")];
        if left_out.iter().any(|path| self.problems.touch(path)) {
            return None;
        }
        let Some(issuer) = issuer else {
            let expected = "an issuer for OpenID discovery, or one of jwks_url and jwks_file";
            require(self.problems, &path, expected);
            return None;
        };
        let discovery = Discovery::of(issuer);
        if discovery.is_none() && !self.problems.touch(&path) {
            let expected = "one of jwks_url and jwks_file beside it, or for OpenID discovery an \
                            http:// or https:// URL without user information, query and fragment";
            add(self.problems, &path, json!(issuer), expected);
        }
        discovery
    }

    fn access(&mut self, jwt: &JwtIdentity) -> Option<Access> {
        let ca_file = self.file(jwt.jwks_ca_file.as_ref(), "jwks_ca_file");
        let token_file = self.file(jwt.jwks_token_file.as_ref(), "jwks_token_file");
        Some(Access { ca_file: ca_file?, token_file: token_file? })
    }

    /// A missing file is only a warning: it may appear later, and each fetch looks for it.
    fn file(&mut self, file: Option<&String>, key: &str) -> Option<Option<PathBuf>> {
        let Some(file) = file else { return Some(None) };
        let path = self.at(key);
        if file.is_empty() {
            add(self.problems, &path, json!(file), "a file's path");
            return None;
        }
        // The file is not opened: opening a pipe would wait for its other end.
        let found = std::fs::metadata(file).map(|found| !found.is_dir());
        let missing = match found {
            Ok(true) => None,
            Ok(false) => Some("a file: it is a directory".to_owned()),
            Err(error) => Some(format!("a file that is there: {error}")),
        };
        if let Some(expected) = missing {
            self.warnings.push(Problem::new(path, Some(&json!(file)), expected));
        }
        Some(Some(file.into()))
    }

    fn judge_plaintext(&mut self, uri: &http::Uri, access: &Option<Access>) {
        let (Some("http"), Some(access)) = (uri.scheme_str(), access) else { return };
        for (file, key, expected) in [
            (&access.ca_file, "jwks_ca_file", "https: without it nothing is verified"),
            (&access.token_file, "jwks_token_file", "https: without it anybody can read the token"),
        ] {
            if file.is_some() {
                self.warnings.push(Problem::new(self.at(key), None, expected));
            }
        }
    }

    fn text(&mut self, value: Option<&str>, key: &str, expected: &str) -> Option<String> {
        let path = self.at(key);
        match value {
            None => {
                require(self.problems, &path, expected);
                None
            }
            Some("") => {
                add(self.problems, &path, json!(""), expected);
                None
            }
            Some(text) => Some(text.to_owned()),
        }
    }
}
