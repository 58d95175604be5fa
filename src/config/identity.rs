//! How the gateway identifies callers: one mode, with its settings.

mod jwt;

use serde_json::{Value, json};

use super::problem::{Problem, Problems};
use super::shape::{self, HeaderFormat, IdentityMode};

pub(crate) use jwt::is_fetchable;
pub use jwt::{Access, Discovery, Jwt, KeySource};

/// How the gateway identifies callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// By a header that a proxy in front sets; its value is a tenant's name, or a subject.
    Header {
        /// The header's name, lower case.
        name: http::HeaderName,
        /// How its value is read.
        format: HeaderFormat,
    },
    /// By a bearer token of one of these issuers. The token's subject is one of a tenant's
    /// subjects. There is at least one issuer, no two entries have the same one, and at most one
    /// entry has none.
    Jwt(Vec<Jwt>),
    /// By a client certificate, one of whose URI or DNS names is one of a tenant's subjects.
    Mtls,
}

/// The mode and its settings. Adds the problems that it finds.
pub(super) fn resolve(
    config: &shape::Config,
    problems: &mut Problems,
    warnings: &mut Vec<Problem>,
) -> Option<Identity> {
    let identity = &config.identity;
    let Some(mode) = identity.mode else {
        require(problems, "identity.mode", "one of header, jwt, mtls");
        return None;
    };
    match mode {
        IdentityMode::Header => header(&identity.header, problems),
        IdentityMode::Jwt => match &identity.jwt {
            Some(entries) => jwt::resolve(entries, problems, warnings).map(Identity::Jwt),
            None => {
                require(problems, "identity.jwt", "issuer and audience, or a list of such entries");
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
    let written = header.name.as_deref().unwrap_or_default();
    let name = http::HeaderName::from_bytes(written.as_bytes()).ok();
    let name = name.filter(|name| !is_reserved(name.as_str()));
    if name.is_none() {
        let expected = "a header name of its own, such as x-tenant-id";
        add(problems, "identity.header.name", json!(written), expected);
    }
    name.map(|name| Identity::Header { name, format: header.format })
}

/// Whether HTTP, gRPC or the gateway already gives the header a meaning.
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

/// Reports a missing key, unless it was left out for a problem of its own.
fn require(problems: &mut Problems, path: &str, expected: &str) {
    if !problems.touch(path) {
        problems.add(Problem::new(path, None, format!("{expected}; it is required")));
    }
}

fn add(problems: &mut Problems, path: &str, value: Value, expected: &str) {
    problems.add(Problem::new(path, Some(&value), expected));
}
