//! What a mesh and an issuer send: Envoy's header, and discovery documents.

use participant_gateway::config::Discovery;
use participant_gateway::identity::jwt::discovery::{is_same_origin, key_set_uri};
use participant_gateway::identity::xfcc::ForwardedClient;

/// The names of the last element are texts of the header. Nothing before that element changes them.
pub fn xfcc(data: &[u8]) {
    let Ok(value) = std::str::from_utf8(data) else { return };
    let parsed = ForwardedClient::parse(value);
    if let Ok(client) = &parsed {
        let names = client.uris.iter().chain(&client.dns);
        assert!(names.map(|name| name.len()).sum::<usize>() <= value.len());
    }
    let proxys = "By=spiffe://b;Hash=ab;Subject=\"CN=own\";URI=spiffe://own";
    // What a caller sends either spoils the whole, or changes nothing of what its proxy adds.
    if let Ok(client) = ForwardedClient::parse(&format!("{value},{proxys}")) {
        assert!(parsed.is_ok(), "a proxy mended what its caller broke: {value:?}");
        assert_eq!(client.uris, ["spiffe://own"], "{value:?}");
        assert!(client.dns.is_empty(), "{value:?}");
    }
}

/// A document is taken only where it is the issuer's, and leads to https.
pub fn discovery(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let own = Discovery::of("https://issuer.test").unwrap();
    if let Ok(uri) = key_set_uri(&own, data.get(end + 1..).unwrap_or_default()) {
        assert_eq!(uri.scheme_str(), Some("https"));
        assert!(!uri.authority().unwrap().as_str().contains('@'));
        assert_eq!(
            is_same_origin(&own.document, &uri),
            uri.host().unwrap().eq_ignore_ascii_case("issuer.test")
                && uri.port_u16().is_none_or(|port| port == 443)
        );
    }
    let Ok(issuer) = std::str::from_utf8(&data[..end]) else { return };
    if let Some(discovery) = Discovery::of(issuer) {
        let base = issuer.strip_suffix('/').unwrap_or(issuer);
        let document = discovery.document.to_string();
        assert!(document.ends_with("/.well-known/openid-configuration"), "{base:?}: {document}");
        let host = base.parse::<http::Uri>().unwrap().host().map(ToOwned::to_owned);
        assert_eq!(discovery.document.host(), host.as_deref(), "{issuer:?} leads elsewhere");
    }
}
