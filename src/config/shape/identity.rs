//! The keys under `identity`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How callers are known. A change needs a restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of identity settings")]
#[schemars(extend("required" = ["mode"]))]
pub struct Identity {
    /// Required: choosing is the operator's duty.
    pub mode: Option<IdentityMode>,
    /// For `mode: header`.
    pub header: HeaderIdentity,
    /// For `mode: jwt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtIdentity>,
}

/// How callers are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IdentityMode {
    /// By a header that something in front sets.
    Header,
    /// By a bearer token.
    Jwt,
    /// By a client certificate.
    Mtls,
}

/// For `mode: header`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of header settings")]
pub struct HeaderIdentity {
    /// The header whose value is a tenant's name.
    pub name: String,
}

/// For `mode: jwt`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of JWT settings")]
#[schemars(extend("required" = ["issuer", "audience"]))]
pub struct JwtIdentity {
    /// The `iss` that tokens must have.
    pub issuer: Option<String>,
    /// The `aud` that tokens must have.
    pub audience: Option<String>,
    /// Where the key set is fetched; `http://` is allowed. One of `jwks_url` and `jwks_file` is
    /// required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Where the key set is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<String>,
    /// The claim that holds the subject.
    pub subject_claim: SubjectClaim,
    /// The signature algorithms that are accepted.
    pub algorithms: Algorithms,
}

/// The claim that holds the subject.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SubjectClaim(pub String);

/// The signature algorithms that are accepted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Algorithms(pub Vec<Algorithm>);

/// An asymmetric signature algorithm (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "named by the RFC")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Default for HeaderIdentity {
    fn default() -> Self {
        Self { name: "x-tenant-id".to_owned() }
    }
}

impl Default for SubjectClaim {
    fn default() -> Self {
        Self("sub".to_owned())
    }
}

impl Default for Algorithms {
    fn default() -> Self {
        Self(vec![Algorithm::RS256, Algorithm::ES256])
    }
}
