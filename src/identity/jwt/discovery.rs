//! OpenID discovery: the issuer's document names its key set (OpenID Connect Discovery 1.0, section
//! 4).
//!
//! A document is accepted only if its issuer is the configured one, byte for byte. It may not lead
//! from `https://` to `http://`.

use http::Uri;
use serde::Deserialize;

use crate::config::{Discovery, is_fetchable};

/// Why a discovery document is refused. The texts are for the log.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Not JSON, or without the two members.
    #[error("it has no `issuer` and `jwks_uri`: {0}")]
    Malformed(serde_json::Error),
    /// The document names another issuer.
    #[error("it is of another issuer than the configured one: {0:?}")]
    OtherIssuer(String),
    /// No `http://` or `https://` URL, or one with user information.
    #[error("its `jwks_uri` is no URL that can be fetched")]
    NoUrl,
    /// The issuer is `https://`, and its key set is not.
    #[error("its `jwks_uri` is not https, and the issuer is")]
    Plaintext,
}

/// The URL of the key set, by the text of the issuer's document.
///
/// # Errors
/// If the document is not the issuer's, or its URL is not allowed.
pub fn key_set_uri(discovery: &Discovery, text: &[u8]) -> Result<Uri, DiscoveryError> {
    #[derive(Deserialize)]
    struct Document {
        issuer: String,
        jwks_uri: String,
    }
    let document: Document = serde_json::from_slice(text).map_err(DiscoveryError::Malformed)?;
    if document.issuer != discovery.issuer {
        let shown = document.issuer.chars().take(MOST_SHOWN).collect();
        return Err(DiscoveryError::OtherIssuer(shown));
    }
    let uri: Uri = document.jwks_uri.parse().map_err(|_| DiscoveryError::NoUrl)?;
    if !is_fetchable(&uri) {
        return Err(DiscoveryError::NoUrl);
    }
    if discovery.document.scheme_str() == Some("https") && uri.scheme_str() != Some("https") {
        return Err(DiscoveryError::Plaintext);
    }
    Ok(uri)
}

/// Whether both are of one scheme, host and port (RFC 6454, section 5).
#[must_use]
pub fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| {
        uri.port_u16()
            .or_else(|| (uri.scheme_str() == Some("https")).then_some(443))
            .unwrap_or(80)
    };
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    one.scheme() == other.scheme() && host(one) == host(other) && port(one) == port(other)
}

/// The most characters of a foreign issuer in the log.
const MOST_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(issuer: &str, jwks_uri: &str) -> Vec<u8> {
        json!({ "issuer": issuer, "jwks_uri": jwks_uri, "id_token_signing_alg_values_supported": ["RS256"] })
            .to_string()
            .into_bytes()
    }

    fn found(issuer: &str, text: &[u8]) -> Result<String, DiscoveryError> {
        key_set_uri(&Discovery::of(issuer).unwrap(), text).map(|uri| uri.to_string())
    }

    #[test]
    fn the_document_stands_below_the_issuer_without_its_last_slash() {
        for (issuer, document) in [
            ("https://a.test", "https://a.test/.well-known/openid-configuration"),
            ("https://a.test/", "https://a.test/.well-known/openid-configuration"),
            ("https://a.test/id/X", "https://a.test/id/X/.well-known/openid-configuration"),
            ("https://a.test/id//", "https://a.test/id//.well-known/openid-configuration"),
            ("http://a.test:8080", "http://a.test:8080/.well-known/openid-configuration"),
        ] {
            assert_eq!(Discovery::of(issuer).unwrap().document.to_string(), document);
        }
        for none in [
            "",
            "issuer",
            "a.test",
            "ftp://a.test",
            "https://",
            "https:///x",
            "https://user@a.test",
            "https://a.test?x",
            "https://a.test#x",
            "urn:issuer",
        ] {
            assert!(Discovery::of(none).is_none(), "{none}");
        }
    }

    #[test]
    fn the_document_must_be_of_the_issuer_byte_for_byte() {
        let (issuer, keys) = ("https://a.test/", "https://keys.test/keys?v=1");
        assert_eq!(found(issuer, &document(issuer, keys)).unwrap(), keys);
        for other in ["https://a.test", "https://a.test//", "https://A.test/", "http://a.test/", ""]
        {
            let found = found(issuer, &document(other, keys));
            assert!(matches!(found, Err(DiscoveryError::OtherIssuer(_))), "{other}: {found:?}");
        }
        let huge = "x".repeat(10_000);
        let Err(error) = found(issuer, &document(&huge, keys)) else { panic!("it was taken") };
        assert!(error.to_string().len() < 300);
    }

    #[test]
    fn nothing_leads_from_https_to_http_or_to_no_url() {
        let issuer = "https://a.test";
        for uri in ["http://a.test/keys", "HTTP://a.test/keys"] {
            let found = found(issuer, &document(issuer, uri));
            assert!(matches!(found, Err(DiscoveryError::Plaintext)), "{uri}: {found:?}");
        }
        for uri in ["", "/keys", "file:///etc/passwd", "https://user@a.test/keys", "https://:443/x"]
        {
            let found = found(issuer, &document(issuer, uri));
            assert!(matches!(found, Err(DiscoveryError::NoUrl)), "{uri}: {found:?}");
        }
        let plain = "http://a.test";
        for uri in ["http://b.test/keys", "https://b.test/keys"] {
            assert_eq!(found(plain, &document(plain, uri)).unwrap(), uri);
        }
    }

    #[test]
    fn a_text_that_is_no_document_is_refused() {
        for text in ["", "[]", "{}", "null", r#"{"issuer": "https://a.test"}"#, "<html>"] {
            let found = found("https://a.test", text.as_bytes());
            assert!(matches!(found, Err(DiscoveryError::Malformed(_))), "{text}: {found:?}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same =
            |one: &str, other: &str| is_same_origin(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(same("https://a.test/x", "https://A.test:443/y?z"));
        assert!(same("http://a.test", "http://a.test:80/"));
        for other in
            ["http://a.test/", "https://a.test:444/", "https://b.test/", "https://a.test.b"]
        {
            assert!(!same("https://a.test/", other), "{other}");
        }
    }
}
