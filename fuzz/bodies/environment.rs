//! Values of the environment's variables: proxies, and OpenTelemetry's own.

use http::Uri;
use participant_gateway::config::Settings;
use participant_gateway::egress::Egress;

/// A line of `NO_PROXY`, a line with a host, and a proxy. A name is reached directly by the rule of
/// curl's documentation, which is written here a second time. No password of a proxy is shown.
pub fn no_proxy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n').map(|line| line.trim_end_matches('\r'));
    let (list, host, proxy) =
        (lines.next().unwrap_or(""), lines.next().unwrap_or(""), lines.next().unwrap_or(""));

    let with_password = Egress::new(|name| (name == "HTTPS_PROXY").then(|| proxy.to_owned()));
    if let Ok(egress) = with_password {
        assert!(egress.proxies().iter().all(|named| !named.proxy.contains('@')));
    }

    let egress = Egress::new(|name| match name {
        "HTTPS_PROXY" | "HTTP_PROXY" => Some("http://proxy:3128".to_owned()),
        "NO_PROXY" => Some(list.to_owned()),
        _ => None,
    });
    let egress = egress.expect("the proxy is one");
    for scheme in ["http", "https"] {
        let Ok(uri) = format!("{scheme}://{host}/").parse::<Uri>() else { continue };
        let is_direct = egress.proxy_for(&uri).is_none();
        if list.is_ascii() && !list.contains('[') && is_name(host) {
            assert_eq!(is_direct, curl_goes_directly(list, host), "NO_PROXY={list:?} {uri}");
        }
    }
}

/// Of letters and digits, so that it is neither an address nor an URL's other parts.
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(is_label) && host.ends_with(|last: char| last.is_ascii_alphabetic())
}

/// CURLOPT_NOPROXY: `*` by itself, a name, or the end of one at a dot; a dot at either end of an
/// entry does not count.
fn curl_goes_directly(list: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let covers = |entry: &str| {
        let entry = entry.to_ascii_lowercase();
        // The gateway also leaves out what ends a line.
        let entry = entry.trim().trim_end_matches('.');
        let entry = entry.strip_prefix('.').unwrap_or(entry);
        !entry.is_empty() && (host == entry || host.ends_with(&format!(".{entry}")))
    };
    list.trim() == "*" || list.split([',', ' ', '\t']).any(covers)
}

/// A variable a line, `NAME=value`. Settings keep their ranges, and a problem does not repeat a
/// header's value, which may be a secret.
pub fn otel(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let is_file = |name: &str| name.ends_with("CERTIFICATE") || name.ends_with("CLIENT_KEY");
    let variables =
        text.lines()
            .filter_map(|line| line.split_once('='))
            .filter_map(|(name, value)| {
                let name = name.trim();
                let secret = if name.ends_with("HEADERS") { SECRET } else { "" };
                // A file could be any of this machine's.
                let is_ours = name.starts_with("OTEL_") && !is_file(name);
                is_ours.then(|| (name.to_owned(), format!("{value}{secret}")))
            });
    match Settings::parse(CONFIG, variables.collect::<Vec<_>>()) {
        Ok(settings) => {
            let otlp = &settings.otlp;
            assert!((0.0..=1.0).contains(&otlp.sampling.ratio), "{:?}", otlp.sampling);
            assert!((1..=otlp.max_queue_spans).contains(&otlp.max_batch_spans), "{otlp:?}");
            for exporter in otlp.traces.iter().chain(&otlp.metrics) {
                let uri: Uri = exporter.endpoint.parse().expect("an endpoint is a URI");
                assert!(matches!(uri.scheme_str(), Some("http" | "https")), "{uri}");
                assert!(uri.host().is_some_and(|host| !host.is_empty()), "{uri}");
                assert!(!exporter.timeout.is_zero());
            }
            assert!(!settings.redacted().to_string().contains(SECRET));
        }
        Err(problems) => assert!(!problems.to_string().contains(SECRET), "{problems}"),
    }
}

const SECRET: &str = "canary-7f3a90";

const CONFIG: &str = r#"{
  "identity": { "mode": "header" },
  "tenants": { "demo": { "instances": ["*"], "rate": "1/s" } },
  "upstreams": { "main": { "region": "us-east-1", "instances": ["*"], "rate": "1/s" } }
}"#;
