//! AWS through a proxy, by a private CA, in the right region.

use aws_lc_rs::digest;
use serde_json::json;

use super::aws::Aws;
use super::proxy::{Asked, Proxy};
use super::{KEYS, call, check, config, row, serve};

const CONNECT: &str = "connect.us-east-1.amazonaws.com:443";

#[tokio::test]
async fn connect_is_reached_by_connect_through_a_proxy_that_asks_for_a_password() {
    let aws = Aws::start().await;
    let proxy = Proxy::start(&[(CONNECT, aws.connect)]).await;
    for variable in ["HTTPS_PROXY", "https_proxy"] {
        let url = proxy.url_with("user:p%40ss");
        let environment = [(variable, url.as_str()), ("AWS_CA_BUNDLE", aws.ca())];
        let mut gateway = serve(config(json!({})), &environment).await;
        assert_eq!(call(gateway.addr, variable).await, Ok(false));
        let line = gateway.running.line_with("proxy").await;
        assert!(line.contains(&proxy.url()) && !line.contains("p%40ss"), "{line}");
    }
    assert_eq!(aws.journal.participant_count(), 2);
    let expected =
        Asked { target: CONNECT.to_owned(), authorization: Some("Basic dXNlcjpwQHNz".to_owned()) };
    assert!(proxy.asked().iter().all(|asked| *asked == expected), "{:?}", proxy.asked());
    row("HTTPS_PROXY and https_proxy, no `endpoint_url`", format!("CONNECT {CONNECT}"));
    row("AWS_CA_BUNDLE", "trusted besides the system's roots");
}

#[tokio::test]
async fn no_proxy_holds_as_curl_reads_it() {
    let (config, _) = super::simulator().await;
    let proxy = Proxy::start(&[]).await;
    let url = proxy.url();
    let gateway = serve(config.clone(), &[("HTTP_PROXY", &url)]).await;
    assert_eq!(call(gateway.addr, "token-1").await, Ok(false));
    let targets = proxy.targets();
    assert!(
        targets.len() == 1 && targets[0].ends_with("/contact/create-participant"),
        "{targets:?}"
    );
    let environment = [("HTTP_PROXY", url.as_str()), ("NO_PROXY", "example.com, 127.0.0.0/8")];
    let gateway = serve(config, &environment).await;
    assert_eq!(call(gateway.addr, "token-2").await, Ok(false));
    assert_eq!(proxy.asked().len(), 1);
    row("HTTP_PROXY, and NO_PROXY=127.0.0.0/8", "by the proxy, and directly");
}

#[tokio::test]
async fn sts_is_asked_in_aws_region_and_through_the_proxy() {
    let aws = Aws::start().await;
    let sts = "sts.eu-central-1.amazonaws.com:443";
    let proxy = Proxy::start(&[(CONNECT, aws.connect), (sts, aws.credentials.by_tls)]).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "a-web-identity").unwrap();
    let environment = [
        ("HTTPS_PROXY", proxy.url()),
        ("AWS_CA_BUNDLE", aws.ca().to_owned()),
        ("AWS_REGION", "eu-central-1".to_owned()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/gateway".to_owned()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.path().display().to_string()),
    ];
    let environment: Vec<_> = environment.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let gateway = super::serve_in(config(json!({})), &environment).await;
    assert_eq!(call(gateway.addr, "token-1").await, Ok(false));
    assert_eq!(proxy.targets(), [CONNECT, sts]);

    let role = json!({ "role_arn": "arn:aws:iam::123456789012:role/other" });
    let gateway = super::serve_in(config(role), &environment).await;
    assert_eq!(call(gateway.addr, "token-2").await, Ok(false));
    assert_eq!(proxy.targets(), [CONNECT, sts]);
    row(
        "AWS_REGION=eu-central-1 with web identity, upstream in us-east-1",
        format!("CONNECT {sts}"),
    );
}

#[tokio::test]
async fn sso_is_asked_through_the_proxy() {
    let aws = Aws::start().await;
    let portal = "portal.sso.us-east-1.amazonaws.com:443";
    let proxy = Proxy::start(&[(CONNECT, aws.connect), (portal, aws.credentials.by_tls)]).await;
    let home = tempfile::tempdir().unwrap();
    let start = "https://corp.awsapps.com/start";
    let profile = format!(
        "[default]\nsso_start_url = {start}\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = r\n"
    );
    let cache = home.path().join(".aws/sso/cache");
    std::fs::create_dir_all(&cache).unwrap();
    std::fs::write(home.path().join(".aws/config"), profile).unwrap();
    let name = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, start.as_bytes());
    let name: String = name.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let token = json!({ "accessToken": "t", "expiresAt": "2999-01-01T00:00:00Z", "region": "us-east-1", "startUrl": start });
    std::fs::write(cache.join(format!("{name}.json")), token.to_string()).unwrap();
    let url = proxy.url();
    let environment = [
        ("HTTPS_PROXY", url.as_str()),
        ("AWS_CA_BUNDLE", aws.ca()),
        ("HOME", home.path().to_str().unwrap()),
    ];
    let mut gateway = super::serve_in(config(json!({})), &environment).await;
    let ended = call(gateway.addr, "token-1").await;
    assert_eq!(ended, Ok(false), "{:#?} {:?}", gateway.running.seen(), proxy.asked());
    assert_eq!(proxy.targets(), [CONNECT, portal]);
    row("SSO with HTTPS_PROXY", format!("CONNECT {portal}"));
}

#[tokio::test]
async fn container_credentials_never_go_through_a_proxy() {
    let aws = Aws::start().await;
    let proxy = Proxy::start(&[(CONNECT, aws.connect)]).await;
    let (proxied, url) = (proxy.url(), format!("http://{}/creds", aws.credentials.open));
    let environment = [
        ("HTTPS_PROXY", proxied.as_str()),
        ("HTTP_PROXY", proxied.as_str()),
        ("AWS_CA_BUNDLE", aws.ca()),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
    ];
    let gateway = super::serve_in(config(json!({})), &environment).await;
    assert_eq!(call(gateway.addr, "token-1").await, Ok(false));
    assert_eq!(aws.credentials.asked(), ["/creds"]);
    assert_eq!(proxy.targets(), [CONNECT]);
    row("container credentials with HTTP_PROXY", "directly");
}

#[tokio::test]
async fn fips_and_dual_stack_endpoints_hold_unless_there_is_one_of_ones_own() {
    for (variable, expected) in [
        ("AWS_USE_FIPS_ENDPOINT", "connect-fips.us-east-1.amazonaws.com:443"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "connect.us-east-1.api.aws:443"),
    ] {
        let proxy = Proxy::start(&[]).await;
        let gateway =
            serve(config(json!({})), &[("HTTPS_PROXY", &proxy.url()), (variable, "true")]).await;
        assert_eq!(call(gateway.addr, "token-1").await.unwrap_err(), "UPSTREAM_UNREACHABLE");
        assert_eq!(proxy.targets(), [expected]);
        row(&format!("{variable}=true"), format!("CONNECT {expected}"));

        let (mut config, _) = super::simulator().await;
        let gateway = serve(config.clone(), &[(variable, "true")]).await;
        assert_eq!(call(gateway.addr, "token-2").await, Ok(false));
        let (code, printed) = check(&config, &[(variable, "true")]);
        let warning = format!("warning: upstreams.main.endpoint_url: expected no {variable}");
        assert!(code == Some(0) && printed.contains(&warning), "{printed}");
        let url = config["upstreams"]["main"]["endpoint_url"].take();
        config["upstreams"]["main"].as_object_mut().unwrap().remove("endpoint_url");
        let environment = [(variable, "true"), ("AWS_ENDPOINT_URL_CONNECT", url.as_str().unwrap())];
        let gateway = serve(config, &environment).await;
        assert_eq!(call(gateway.addr, "token-3").await, Ok(false));
        row(&format!("{variable}=true with `endpoint_url`"), "the endpoint wins; check warns");
    }
}

#[test]
fn what_cannot_be_honoured_is_a_problem_and_a_proxy_is_named_without_its_password() {
    for (name, value) in [
        ("HTTPS_PROXY", "socks5://127.0.0.1:1080"),
        ("http_proxy", "http://"),
        ("AWS_CA_BUNDLE", "/nowhere"),
        ("AWS_CA_BUNDLE", "/dev/null"),
    ] {
        let (code, printed) = check(&config(json!({})), &[(name, value)]);
        assert!(code == Some(78) && printed.starts_with(name), "{name}={value}: {printed}");
    }
    let environment = [&KEYS[..], &[("HTTPS_PROXY", "http://user:canary@proxy:3128")]].concat();
    let (code, printed) = check(&config(json!({})), &environment);
    assert!(code == Some(0) && printed.contains("http://proxy:3128"), "{printed}");
    assert!(!printed.contains("canary"), "{printed}");
    row("check with HTTPS_PROXY", printed.lines().next().unwrap_or_default());
}
