//! The keys under `identity`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::OneOrMany;

/// How the gateway identifies callers. A change needs a restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of identity settings")]
#[schemars(extend("required" = ["mode"]))]
pub(crate) struct Identity {
    /// Required: the operator must choose the mode.
    pub(crate) mode: Option<IdentityMode>,
    /// For `mode: header`.
    pub(crate) header: HeaderIdentity,
    /// For `mode: jwt`: one issuer, or a list of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jwt: Option<OneOrMany<JwtIdentity>>,
}

/// How the gateway identifies callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IdentityMode {
    /// By a header that a proxy in front of the gateway sets.
    Header,
    /// By a bearer token.
    Jwt,
    /// By a client certificate.
    Mtls,
}

/// For `mode: header`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of header settings")]
pub(crate) struct HeaderIdentity {
    /// The header's name. Absent: `x-tenant-id`, or `x-forwarded-client-cert` with `format: xfcc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How its value is read.
    pub format: HeaderFormat,
}

/// How the value of the identity header is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeaderFormat {
    /// The value is a tenant's name, or one of its subjects.
    #[default]
    Plain,
    /// Envoy's `x-forwarded-client-cert`: the URI of its last element, or else its DNS name, is a
    /// subject.
    Xfcc,
}

/// For `mode: jwt`: the tokens of one issuer.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of JWT settings")]
#[schemars(extend("required" = ["audience"]))]
pub(crate) struct JwtIdentity {
    /// The `iss` that tokens must have, byte for byte. Absent: the tokens of this key set may have
    /// any `iss` that no other entry has. Only one entry may have no issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The accepted audiences. A token must have one of them.
    pub(crate) audience: Option<OneOrMany<String>>,
    /// The claim that holds the audience.
    pub(crate) audience_claim: AudienceClaim,
    /// The URL of the key set; `http://` is allowed. With neither `jwks_url` nor `jwks_file`,
    /// OpenID discovery at the issuer finds the key set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// The file of the key set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<String>,
    /// Certificate authorities, PEM, that are trusted for this key set besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_ca_file: Option<String>,
    /// The file of a bearer token for the key set's server, read at each fetch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_token_file: Option<String>,
    /// The claim that holds the subject.
    pub(crate) subject_claim: SubjectClaim,
    /// The signature algorithms that are accepted.
    pub(crate) algorithms: Algorithms,
}

/// The claim that holds the audience.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct AudienceClaim(pub String);

/// The claim that holds the subject.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct SubjectClaim(pub String);

/// The signature algorithms that are accepted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Algorithms(pub Vec<Algorithm>);

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

impl HeaderIdentity {
    /// Fills in the header's name where it is not set.
    pub(in crate::config) fn fill(&mut self) {
        let usual = match self.format {
            HeaderFormat::Plain => "x-tenant-id",
            HeaderFormat::Xfcc => "x-forwarded-client-cert",
        };
        self.name.get_or_insert_with(|| usual.to_owned());
    }
}

impl Default for AudienceClaim {
    fn default() -> Self {
        Self("aud".to_owned())
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
