//! Several issuers: each token by the keys and the rules of its own issuer alone.

use serde_json::{Value, json};

use super::*;
use crate::error::RefusalKind as Kind;

/// An issuer with a key set endpoint of its own.
async fn entry(issuer: Option<&str>, audience: &str, signer: &Signer) -> config::Jwt {
    let endpoint = Endpoint::serving(&key_set([signer])).await;
    config::Jwt {
        issuer: issuer.map(ToOwned::to_owned),
        audiences: vec![audience.to_owned()],
        ..settings(url_source(&endpoint.url()), &[Algorithm::ES256])
    }
}

fn with(changes: Value) -> Value {
    let mut claims = claims("system:serviceaccount:chat:bot", SystemTime::now());
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

async fn kind(jwt: &Jwt, token: &str) -> Result<(), Kind> {
    jwt.tenant(&with_token(token), demo)
        .await
        .map(drop)
        .map_err(|refusal| refusal.kind)
}

#[tokio::test]
async fn a_token_is_verified_by_its_own_issuers_keys_and_rules_alone() {
    let (a, b) = (Signer::new("a", "ES256"), Signer::new("b", "ES256"));
    let entries =
        [entry(Some("https://a"), "for-a", &a).await, entry(Some("https://b"), "for-b", &b).await];
    let jwt = among(&entries, Pace::URL);
    let claims_a = with(json!({ "iss": "https://a", "aud": "for-a" }));
    let claims_b = with(json!({ "iss": "https://b", "aud": "for-b" }));
    assert_eq!(kind(&jwt, &a.token(&claims_a)).await, Ok(()));
    assert_eq!(kind(&jwt, &b.token(&claims_b)).await, Ok(()));

    // A's name, B's key under either id.
    assert_eq!(kind(&jwt, &b.token(&claims_a)).await, Err(Kind::UnknownKey));
    let renamed = b.token_with(&json!({ "alg": "ES256", "kid": "a" }), &claims_a);
    assert_eq!(kind(&jwt, &renamed).await, Err(Kind::Signature));
    let unnamed = b.token_with(&json!({ "alg": "ES256" }), &claims_a);
    assert_eq!(kind(&jwt, &unnamed).await, Err(Kind::Signature));
    // A's token with B's audience.
    let foreign = a.token(&with(json!({ "iss": "https://a", "aud": "for-b" })));
    assert_eq!(kind(&jwt, &foreign).await, Err(Kind::Audience));
    // Tokens of no configured issuer.
    for iss in [json!("https://c"), json!("https://a/"), json!(["https://a"]), json!(null)] {
        let claims = with(json!({ "iss": iss, "aud": ["for-a", "for-b"] }));
        for signer in [&a, &b] {
            assert_eq!(kind(&jwt, &signer.token(&claims)).await, Err(Kind::Issuer), "{claims}");
        }
    }
}

#[tokio::test]
async fn the_entry_without_an_issuer_takes_what_is_no_other_entrys() {
    let (named, any) = (Signer::new("named", "ES256"), Signer::new("any", "ES256"));
    let entries =
        [entry(None, AUDIENCE, &any).await, entry(Some("https://named"), AUDIENCE, &named).await];
    let jwt = among(&entries, Pace::URL);
    for iss in [json!(null), json!("https://spire"), json!(7), json!("")] {
        let claims = with(json!({ "iss": iss }));
        assert_eq!(kind(&jwt, &any.token(&claims)).await, Ok(()), "{claims}");
        assert_eq!(kind(&jwt, &named.token(&claims)).await, Err(Kind::UnknownKey), "{claims}");
    }
    let claims = with(json!({ "iss": "https://named" }));
    assert_eq!(kind(&jwt, &named.token(&claims)).await, Ok(()));
    assert_eq!(kind(&jwt, &any.token(&claims)).await, Err(Kind::UnknownKey));
}

#[tokio::test]
async fn an_issuer_whose_keys_cannot_be_had_holds_up_no_other() {
    let (a, b) = (Signer::new("a", "ES256"), Signer::new("b", "ES256"));
    let down = Endpoint::serving("nothing").await;
    let broken = config::Jwt {
        issuer: Some("https://b".to_owned()),
        ..settings(url_source(&down.url()), &[Algorithm::ES256])
    };
    let jwt = among(&[entry(Some("https://a"), AUDIENCE, &a).await, broken], Pace::URL);
    let of = |signer: &Signer, iss: &str| signer.token(&with(json!({ "iss": iss })));
    assert_eq!(kind(&jwt, &of(&a, "https://a")).await, Ok(()));
    assert_eq!(kind(&jwt, &of(&b, "https://b")).await, Err(Kind::NoKeys));
    assert_eq!(kind(&jwt, &of(&a, "https://b")).await, Err(Kind::NoKeys));
}

#[tokio::test]
async fn tokens_without_a_key_id_are_taken_through_a_rotation() {
    let (old, new) = (Signer::new("old", "ES256"), Signer::new("new", "ES256"));
    let endpoint = Endpoint::serving(&key_set([&old])).await;
    let jwt = over(&endpoint.url(), Pace { asked: Duration::ZERO, ..Pace::URL });
    let unnamed = |signer: &Signer| signer.token_with(&json!({ "alg": "ES256" }), &with(json!({})));
    assert_eq!(kind(&jwt, &unnamed(&old)).await, Ok(()));
    endpoint.serves(&key_set([&old, &new]));
    assert_eq!(kind(&jwt, &unnamed(&new)).await, Ok(()));
    assert_eq!(kind(&jwt, &unnamed(&old)).await, Ok(()));
    endpoint.serves(&key_set([&new]));
    jwt.issuers()[0].keys().refreshed().await;
    assert_eq!(kind(&jwt, &unnamed(&old)).await, Err(Kind::Signature));
    assert_eq!(kind(&jwt, &unnamed(&new)).await, Ok(()));
}
