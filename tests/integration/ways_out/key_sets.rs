//! Key sets go the way out that AWS does.

use rcgen::CertificateParams;
use serde_json::json;

use super::authority::Authority;
use super::issuer::{AUDIENCE, Endpoint, ISSUER, Signer, key_set};
use super::proxy::{Asked, Proxy};
use super::{config, row, serve};
use crate::support::set;
use crate::support::tls::tls_before;

#[tokio::test]
async fn a_key_set_is_fetched_through_the_proxy_and_by_the_bundle() {
    let (signer, authority) = (Signer::new("a", "RS256"), Authority::new());
    let endpoint = Endpoint::serving(&key_set([&signer])).await;
    let names = vec!["keys.example".to_owned()];
    let pair = authority.sign(&CertificateParams::new(names).unwrap());
    let by_tls = tls_before(endpoint.addr, &pair).await;
    let places = [("keys.example:443", by_tls), ("keys.example", endpoint.addr)];
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), &authority.pem).unwrap();
    for (url, variable, target) in [
        ("https://keys.example/keys", "HTTPS_PROXY", "keys.example:443"),
        ("http://keys.example/keys", "HTTP_PROXY", "http://keys.example/keys"),
    ] {
        let proxy = Proxy::start(&places).await;
        let mut config = config(json!({}));
        let jwt = json!({ "issuer": ISSUER, "audience": AUDIENCE, "jwks_url": url });
        set(&mut config, "/identity", json!({ "mode": "jwt", "jwt": jwt }));
        set(&mut config, "/tenants/demo/subjects", json!(["somebody"]));
        let through = proxy.url_with("user:pass");
        let environment =
            [(variable, through.as_str()), ("AWS_CA_BUNDLE", ca.path().to_str().unwrap())];
        let mut gateway = serve(config, &environment).await;
        let line = gateway.running.line_with("key set ").await;
        assert!(line.contains("key set loaded"), "{line}");
        let authorization = Some("Basic dXNlcjpwYXNz".to_owned());
        assert_eq!(proxy.asked()[0], Asked { target: target.to_owned(), authorization });
        row(&format!("{variable}, `jwks_url: {url}`"), format!("the proxy is asked for {target}"));
    }
}
