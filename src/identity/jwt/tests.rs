//! Whole tokens over a real key set endpoint; the rules and the refreshing each have tests of their
//! own below.

#[path = "../../net/tls/tests/authority.rs"]
#[allow(clippy::duplicate_mod, dead_code, reason = "shared with the tests of TLS")]
mod authority;
mod issuer;
mod issuers;
mod refreshing;
mod rules;
mod server;
mod servers;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tempfile::TempDir;

use super::cache::{KeyCache, Pace};
use super::fetch::FetchError;
use super::source::Fetcher;
use super::*;
use crate::config::shape::Algorithm;
use crate::config::{Access, KeySource};
use crate::domain::{Enforcement, Instances, Name, Rate, TenantLimits};
use issuer::{AUDIENCE, Endpoint, ISSUER, Signer, claims, key_set};

fn settings(keys: KeySource, algorithms: &[Algorithm]) -> config::Jwt {
    config::Jwt {
        issuer: Some(ISSUER.to_owned()),
        audiences: vec![AUDIENCE.to_owned()],
        audience_claim: "aud".to_owned(),
        subject_claim: "sub".to_owned(),
        algorithms: algorithms.to_vec(),
        keys,
    }
}

fn demo(subject: &str) -> Option<Arc<Tenant>> {
    let rate = Rate::new(1.0).unwrap();
    let limits = TenantLimits {
        rate,
        burst: 1,
        committed: rate,
        max_in_flight: 1,
        enforcement: Enforcement::Enforce,
    };
    let name = Name::parse("demo").unwrap();
    let tenant = Tenant {
        name,
        instances: Instances::Any,
        roles: Default::default(),
        requires_client_token: false,
        limits,
    };
    (subject == "system:serviceaccount:chat:bot").then(|| Arc::new(tenant))
}

fn headers(values: &[&str]) -> HeaderMap {
    values
        .iter()
        .map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn with_token(token: &str) -> HeaderMap {
    headers(&[&format!("Bearer {token}")])
}

/// The reason for the log, of a call that is refused.
async fn refusal(jwt: &Jwt, headers: &HeaderMap) -> &'static str {
    jwt.tenant(headers, demo).await.expect_err("the call was taken").detail
}

/// A running verifier over what is at the endpoint.
fn over(url: &str, pace: Pace) -> Arc<Jwt> {
    running(url_source(url), pace)
}

fn url_source(url: &str) -> KeySource {
    KeySource::Url(url.parse().unwrap(), Access::default())
}

fn running(keys: KeySource, pace: Pace) -> Arc<Jwt> {
    among(&[settings(keys, &[Algorithm::RS256, Algorithm::ES256])], pace)
}

/// A running verifier of these entries.
fn among(entries: &[config::Jwt], pace: Pace) -> Arc<Jwt> {
    let issuer = |entry| Arc::new(Issuer::with_pace(entry, &Arc::default(), pace).unwrap());
    let jwt = Jwt { issuers: entries.iter().map(issuer).collect() };
    for issuer in jwt.issuers() {
        let issuer = Arc::clone(issuer);
        tokio::spawn(async move { issuer.run(|_| ()).await });
    }
    Arc::new(jwt)
}

fn good(signer: &Signer) -> HeaderMap {
    with_token(&signer.token(&claims("system:serviceaccount:chat:bot", SystemTime::now())))
}

async fn until_taken(jwt: &Jwt, headers: &HeaderMap) {
    let taken = async {
        while jwt.tenant(headers, demo).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), taken)
        .await
        .expect("the token was never taken");
}

#[tokio::test]
async fn a_good_token_is_its_subjects_tenant_from_the_first_call_on() {
    let signer = Signer::new("a", "ES256");
    let endpoint = Endpoint::serving(&key_set([&signer])).await;
    let jwt = over(&endpoint.url(), Pace::URL);
    let tenant = jwt.tenant(&good(&signer), demo).await.unwrap();
    assert_eq!(tenant.name.as_str(), "demo");
    for scheme in ["bearer", "BEARER"] {
        let token = good(&signer)[AUTHORIZATION].to_str().unwrap().replace("Bearer", scheme);
        assert!(jwt.tenant(&headers(&[&token]), demo).await.is_ok(), "{scheme}");
    }
    assert_eq!(endpoint.fetches(), 1);
}

#[tokio::test]
async fn a_good_token_of_an_unknown_subject_is_no_tenants() {
    let signer = Signer::new("a", "ES256");
    let jwt = over(&Endpoint::serving(&key_set([&signer])).await.url(), Pace::URL);
    for subject in ["system:serviceaccount:chat:bot2", "system:serviceaccount:chat", "demo"] {
        let token = signer.token(&claims(subject, SystemTime::now()));
        let refusal = jwt.tenant(&with_token(&token), demo).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::UnknownTenant, "{subject}: {refusal:?}");
        assert_eq!(refusal.subject.as_deref(), Some(subject), "{refusal:?}");
    }
}

#[tokio::test]
async fn exactly_one_bearer_token_is_needed() {
    let signer = Signer::new("a", "ES256");
    let jwt = over(&Endpoint::serving(&key_set([&signer])).await.url(), Pace::URL);
    let token = good(&signer)[AUTHORIZATION].to_str().unwrap().to_owned();
    for (values, reason) in [
        (&[][..], "no authorization header"),
        (&[&*token, &*token], "more than one authorization header"),
        (&["Basic dXNlcjpwYXNz"], "the authorization is no bearer token"),
        (&["Bearer"], "an empty bearer token"),
        (&["Bearer  "], "an empty bearer token"),
        (&["Bearer not-a-token"], "not a JSON Web Token"),
    ] {
        assert_eq!(refusal(&jwt, &headers(values)).await, reason, "{values:?}");
    }
    let binary =
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff").unwrap())]);
    assert_eq!(refusal(&jwt, &binary).await, "the authorization header is not ASCII");
}

#[tokio::test]
async fn a_new_key_is_taken_with_the_first_token_that_names_it() {
    let (old, new) = (Signer::new("old", "RS256"), Signer::new("new", "ES256"));
    let endpoint = Endpoint::serving(&key_set([&old])).await;
    let jwt = over(&endpoint.url(), Pace::URL);
    assert!(jwt.tenant(&good(&old), demo).await.is_ok());

    endpoint.serves(&key_set([&new]));
    assert!(jwt.tenant(&good(&new), demo).await.is_ok());
    assert_eq!(refusal(&jwt, &good(&old)).await, "the token is signed by an unknown key");
    assert_eq!(endpoint.fetches(), 2, "the retired key's token was worth a fetch of its own");
}

#[tokio::test]
async fn a_storm_of_unknown_keys_is_one_fetch() {
    let (known, unknown) = (Signer::new("known", "ES256"), Signer::new("unknown", "ES256"));
    let endpoint = Endpoint::serving(&key_set([&known])).await;
    let jwt = over(&endpoint.url(), Pace::URL);
    assert!(jwt.tenant(&good(&known), demo).await.is_ok());
    endpoint.delays(Duration::from_millis(100));
    let storm: Vec<_> = (0..200)
        .map(|_| {
            let (jwt, headers) = (Arc::clone(&jwt), good(&unknown));
            tokio::spawn(async move { refusal(&jwt, &headers).await })
        })
        .collect();
    for call in storm {
        assert_eq!(call.await.unwrap(), "the token is signed by an unknown key");
    }
    assert_eq!(endpoint.fetches(), 2);
    assert!(
        jwt.tenant(&good(&known), demo).await.is_ok(),
        "the storm cost an honest caller its call"
    );
}

#[tokio::test]
async fn the_old_set_serves_while_the_endpoint_is_down() {
    let signer = Signer::new("a", "ES256");
    let endpoint = Endpoint::serving(&key_set([&signer])).await;
    let often = Duration::from_millis(5);
    let jwt = over(&endpoint.url(), Pace { regular: often, retry: often, ..Pace::URL });
    assert!(jwt.tenant(&good(&signer), demo).await.is_ok());
    for broken in [
        "",
        "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"keys\": []}",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nnot json!",
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/keys\r\ncontent-length: 0\r\n\r\n",
    ] {
        endpoint.answers(broken);
        let fetched = endpoint.fetches();
        let more = async {
            while endpoint.fetches() < fetched + 3 {
                tokio::time::sleep(often).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), more).await.expect("no fetch");
        assert!(jwt.tenant(&good(&signer), demo).await.is_ok(), "{broken}");
    }
}

#[tokio::test]
async fn without_a_set_calls_are_refused_until_it_can_be_had() {
    let signer = Signer::new("a", "ES256");
    let endpoint = Endpoint::serving("nothing yet").await;
    let jwt = over(&endpoint.url(), Pace { retry: Duration::from_millis(5), ..Pace::URL });
    assert_eq!(refusal(&jwt, &good(&signer)).await, "no key set is loaded yet");
    endpoint.serves(&key_set([&signer]));
    until_taken(&jwt, &good(&signer)).await;
}

#[tokio::test]
async fn what_an_endpoint_may_send_is_bounded() {
    let fetched = async |answer: String| {
        let endpoint = Endpoint::serving("").await;
        endpoint.answers(&answer);
        Fetcher::new(&url_source(&endpoint.url()), &Arc::default())
            .unwrap()
            .fetch()
            .await
    };
    let huge = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(2 * 1024 * 1024));
    assert!(matches!(fetched(huge).await, Err(FetchError::TooLarge)));
    let redirect =
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n"
            .to_owned();
    assert!(matches!(fetched(redirect).await, Err(FetchError::Status(302))));
    let cut_off = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_owned();
    assert!(matches!(fetched(cut_off).await, Err(FetchError::Unreachable(_))));

    let endpoint = Endpoint::serving("").await;
    endpoint.delays(Duration::from_secs(60));
    let silent = Fetcher::new(&url_source(&endpoint.url()), &Arc::default()).unwrap();
    let started = std::time::Instant::now();
    assert!(matches!(silent.fetch().await, Err(FetchError::TimedOut)));
    assert!(started.elapsed() < Duration::from_secs(7));
}

#[tokio::test]
async fn a_set_in_a_file_is_read_again_when_its_link_is_swapped() {
    let (old, new) = (Signer::new("old", "ES256"), Signer::new("new", "ES256"));
    let folder = TempDir::new().unwrap();
    let version = |name: &str, signer| {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("keys.json"), key_set([signer])).unwrap();
    };
    version("..v1", &old);
    version("..v2", &new);
    symlink("..v1", folder.path().join("..data")).unwrap();
    symlink("..data/keys.json", folder.path().join("keys.json")).unwrap();
    let often = Duration::from_millis(5);
    let file = KeySource::File(folder.path().join("keys.json"));
    let jwt = running(file, Pace { regular: often, retry: often, ..Pace::FILE });
    assert!(jwt.tenant(&good(&old), demo).await.is_ok());

    swap(folder.path(), "..v2");
    until_taken(&jwt, &good(&new)).await;

    fs::write(folder.path().join("..v2/keys.json"), "broken").unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(jwt.tenant(&good(&new), demo).await.is_ok(), "a broken file was taken");
    assert!(jwt.tenant(&good(&old), demo).await.is_err());
}

fn swap(folder: &Path, to: &str) {
    symlink(to, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}
