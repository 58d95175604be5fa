//! How callers are known: one mode, with all that it needs.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::problem::{Problem, Problems};
use super::shape::{self, Algorithm, IdentityMode, JwtIdentity};

/// How callers are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// By a header that something in front sets; its value is a tenant's name.
    Header {
        /// The header's name, lower case.
        name: http::HeaderName,
    },
    /// By a bearer token, whose subject is one of a tenant's subjects.
    Jwt(Jwt),
    /// By a client certificate, one of whose URI or DNS names is one of a tenant's subjects.
    Mtls,
}

/// What a bearer token must be, and where the keys are that it may be signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// The `iss` that it must have.
    pub issuer: String,
    /// The `aud` that it must have, alone or among others.
    pub audience: String,
    /// The claim that holds the subject.
    pub subject_claim: String,
    /// The signature algorithms that are accepted; at least one, all of them asymmetric.
    pub algorithms: Vec<Algorithm>,
    /// Where the key set is.
    pub keys: KeySource,
}

/// Where a JSON Web Key Set is (RFC 7517, section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Fetched: `http://` or `https://`.
    Url(http::Uri),
    /// Read, and read again where it changes.
    File(PathBuf),
}

/// The mode and its settings, or the problems that stand in the way.
pub(super) fn resolve(config: &shape::Config, problems: &mut Problems) -> Option<Identity> {
    let identity = &config.identity;
    let Some(mode) = identity.mode else {
        require(problems, "identity.mode", "one of header, jwt, mtls");
        return None;
    };
    match mode {
        IdentityMode::Header => header(&identity.header, problems),
        IdentityMode::Jwt => match &identity.jwt {
            Some(jwt) => resolve_jwt(jwt, problems).map(Identity::Jwt),
            None => {
                require(
                    problems,
                    "identity.jwt",
                    "issuer, audience, and one of jwks_url and jwks_file",
                );
                None
            }
        },
        IdentityMode::Mtls => {
            if config.server.tls.as_ref().is_none_or(|tls| tls.client_ca_file.is_none()) {
                require(
                    problems,
                    "server.tls.client_ca_file",
                    "the CA of client certificates: identity.mode is mtls",
                );
            }
            Some(Identity::Mtls)
        }
    }
}

fn header(header: &shape::HeaderIdentity, problems: &mut Problems) -> Option<Identity> {
    let name = http::HeaderName::from_bytes(header.name.as_bytes()).ok();
    let name = name.filter(|name| !is_reserved(name.as_str()));
    if name.is_none() {
        let expected = "a header name of its own, such as x-tenant-id";
        add(problems, "identity.header.name", json!(header.name), expected);
    }
    name.map(|name| Identity::Header { name })
}

/// Headers that mean something else already.
fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 8] = [
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "te",
        "user-agent",
        "x-request-id",
    ];
    RESERVED.contains(&name) || name.ends_with("-bin") || name.starts_with("grpc-")
}

fn resolve_jwt(jwt: &JwtIdentity, problems: &mut Problems) -> Option<Jwt> {
    let issuer = text(
        jwt.issuer.as_deref(),
        "identity.jwt.issuer",
        "the `iss` that tokens must have",
        problems,
    );
    let audience = text(
        jwt.audience.as_deref(),
        "identity.jwt.audience",
        "the `aud` that tokens must have",
        problems,
    );
    let claim = text(
        Some(&jwt.subject_claim.0),
        "identity.jwt.subject_claim",
        "a claim's name such as sub",
        problems,
    );
    if jwt.algorithms.0.is_empty() && !problems.touch("identity.jwt.algorithms") {
        add(problems, "identity.jwt.algorithms", json!([]), "at least one, such as RS256");
    }
    let keys = keys(jwt, problems);
    Some(Jwt {
        issuer: issuer?,
        audience: audience?,
        subject_claim: claim?,
        algorithms: jwt.algorithms.0.clone(),
        keys: keys?,
    })
}

fn keys(jwt: &JwtIdentity, problems: &mut Problems) -> Option<KeySource> {
    match (&jwt.jwks_url, &jwt.jwks_file) {
        (Some(url), None) => {
            let uri = url.parse::<http::Uri>().ok().filter(is_fetchable);
            if uri.is_none() {
                let expected =
                    "a URL that begins with http:// or https://, without user information";
                add(problems, "identity.jwt.jwks_url", json!(url), expected);
            }
            uri.map(KeySource::Url)
        }
        (None, Some(file)) if !file.is_empty() => Some(KeySource::File(file.into())),
        (None, Some(file)) => {
            add(problems, "identity.jwt.jwks_file", json!(file), "a file's path");
            None
        }
        (Some(_), Some(file)) => {
            add(
                problems,
                "identity.jwt.jwks_file",
                json!(file),
                "only one of jwks_url and jwks_file",
            );
            None
        }
        (None, None) => {
            require(problems, "identity.jwt.jwks_url", "one of jwks_url and jwks_file");
            None
        }
    }
}

fn is_fetchable(uri: &http::Uri) -> bool {
    let scheme = uri.scheme_str().is_some_and(|scheme| matches!(scheme, "http" | "https"));
    let named = uri.host().is_some_and(|host| !host.is_empty());
    scheme && named && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
}

fn text(
    value: Option<&str>,
    path: &str,
    expected: &str,
    problems: &mut Problems,
) -> Option<String> {
    match value {
        None => {
            require(problems, path, expected);
            None
        }
        Some("") => {
            add(problems, path, json!(""), expected);
            None
        }
        Some(text) => Some(text.to_owned()),
    }
}

/// A missing key, unless it was left out for a problem of its own.
fn require(problems: &mut Problems, path: &str, expected: &str) {
    if !problems.touch(path) {
        problems.add(Problem::new(path, None, format!("{expected}; it is required")));
    }
}

fn add(problems: &mut Problems, path: &str, value: Value, expected: &str) {
    problems.add(Problem::new(path, Some(&value), expected));
}
