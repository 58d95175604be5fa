//! One token against one set: every way to be wrong, each with a reason of its own.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::issuer::{encode, unsigned};
use super::*;

fn now() -> SystemTime {
    NOW + Duration::from_secs(1_800_000_000)
}

fn rules(algorithms: &[Algorithm]) -> Rules {
    Rules::new(&settings(KeySource::File("unused".into()), algorithms))
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn with(changes: Value) -> Value {
    let mut claims = claims("bot", now());
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims("bot", now());
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[test]
fn every_configured_algorithm_verifies_and_none_that_is_not_configured() {
    for (algorithm, name) in EVERY
        .iter()
        .zip(["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"])
    {
        let signer = Signer::new("a", name);
        let (token, keys) = (signer.token(&claims("bot", now())), set(&[signer.jwk()]));
        assert_eq!(
            rules(&[*algorithm]).subject(&token, Some(&keys), now()),
            Ok("bot".to_owned()),
            "{name}"
        );
        let others: Vec<_> = EVERY.into_iter().filter(|other| other != algorithm).collect();
        let refused = rules(&others).subject(&token, Some(&keys), now());
        assert_eq!(refused, Err(Refusal::Final("the token's algorithm is not allowed")), "{name}");
    }
}

#[test]
fn every_claim_is_checked_with_a_leeway_of_a_minute() {
    let signer = Signer::new("a", "ES256");
    let (rules, keys) = (rules(&EVERY), set(&[signer.jwk()]));
    let at = |offset: i64| 1_800_000_000 + offset;
    for (claims, reason) in [
        (without("exp"), "the token has no expiry"),
        (with(json!({ "exp": "tomorrow" })), "the token's expiry is no time"),
        (with(json!({ "exp": null })), "the token's expiry is no time"),
        (with(json!({ "exp": at(-60) })), "the token has expired"),
        (with(json!({ "exp": -1 })), "the token has expired"),
        (with(json!({ "nbf": at(61) })), "the token is not valid yet"),
        (with(json!({ "nbf": "now" })), "the token's not-before is no time"),
        (without("iss"), "the token has no issuer"),
        (with(json!({ "iss": "https://issuer.test/" })), "the token is another issuer's"),
        (with(json!({ "iss": [ISSUER] })), "the token is another issuer's"),
        (without("aud"), "the token has no audience"),
        (with(json!({ "aud": "another" })), "the token is for another audience"),
        (with(json!({ "aud": [] })), "the token is for another audience"),
        (with(json!({ "aud": ["a", "b"] })), "the token is for another audience"),
        (with(json!({ "aud": { AUDIENCE: true } })), "the token is for another audience"),
        (without("sub"), "the token has no subject"),
        (with(json!({ "sub": "" })), "the token's subject is no text, or empty"),
        (with(json!({ "sub": 7 })), "the token's subject is no text, or empty"),
        (with(json!({ "sub": ["bot"] })), "the token's subject is no text, or empty"),
    ] {
        let refused = rules.subject(&signer.token(&claims), Some(&keys), now());
        assert_eq!(refused, Err(Refusal::Final(reason)), "{claims}");
    }
    for claims in [
        with(json!({ "exp": at(-59) })),
        with(json!({ "exp": 1_800_000_000.5 })),
        with(json!({ "nbf": at(60) })),
        without("nbf"),
        without("iat"),
        with(json!({ "aud": AUDIENCE })),
        with(json!({ "aud": ["another", AUDIENCE] })),
    ] {
        assert_eq!(
            rules.subject(&signer.token(&claims), Some(&keys), now()),
            Ok("bot".to_owned()),
            "{claims}"
        );
    }
}

#[test]
fn the_subject_claim_is_configurable() {
    let signer = Signer::new("a", "ES256");
    let settings = config::Jwt {
        subject_claim: "client_id".to_owned(),
        ..settings(KeySource::File("unused".into()), &EVERY)
    };
    let (rules, keys) = (Rules::new(&settings), set(&[signer.jwk()]));
    let token = signer.token(&with(json!({ "client_id": "chat" })));
    assert_eq!(rules.subject(&token, Some(&keys), now()), Ok("chat".to_owned()));
    let token = signer.token(&claims("bot", now()));
    assert_eq!(
        rules.subject(&token, Some(&keys), now()),
        Err(Refusal::Final("the token has no subject"))
    );
}

#[test]
fn a_token_without_a_signature_is_refused_whatever_its_header_says() {
    let signer = Signer::new("a", "RS256");
    let (rules, keys) = (rules(&EVERY), set(&[signer.jwk()]));
    let claims = claims("bot", now());
    for algorithm in ["none", "None", "NONE", "nOnE", ""] {
        for signature in ["", "e30", &encode(&[0; 256])] {
            let token = format!(
                "{}.{signature}",
                unsigned(&json!({ "alg": algorithm, "kid": "a" }), &claims)
            );
            assert!(
                matches!(rules.subject(&token, Some(&keys), now()), Err(Refusal::Final(_))),
                "{algorithm}"
            );
        }
    }
    let token = format!("{}.", unsigned(&json!({ "alg": "RS256", "kid": "a" }), &claims));
    assert_eq!(
        rules.subject(&token, Some(&keys), now()),
        Err(Refusal::Final("the token's signature is wrong"))
    );
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let signer = Signer::new("a", "RS256");
    let jwk = signer.jwk();
    let claims = claims("bot", now());
    let message = unsigned(&json!({ "alg": "HS256", "kid": "a" }), &claims);
    for secret in [jwk["n"].as_str().unwrap().as_bytes(), jwk.to_string().as_bytes()] {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        let token = format!(
            "{message}.{}",
            encode(aws_lc_rs::hmac::sign(&key, message.as_bytes()).as_ref())
        );
        let refused = rules(&EVERY).subject(&token, Some(&set(std::slice::from_ref(&jwk))), now());
        assert_eq!(refused, Err(Refusal::Final("the token's algorithm is not allowed")));
    }
    // A shared secret in the set is no key of ours, whatever it says of itself.
    let secret = json!({ "kty": "oct", "kid": "a", "k": encode(b"secret"), "alg": "RS256" });
    assert!(KeySet::parse(json!({ "keys": [secret] }).to_string().as_bytes()).is_err());
}

#[test]
fn a_key_serves_only_what_its_kind_use_and_algorithm_allow() {
    let (rsa, ec) = (Signer::new("a", "RS256"), Signer::new("a", "ES256"));
    let rules = rules(&EVERY);
    let token = rsa.token(&claims("bot", now()));
    let refused =
        |jwk: Value, other: Value| match rules.subject(&token, Some(&set(&[jwk, other])), now()) {
            Err(refusal) => refusal.reason(),
            Ok(subject) => panic!("{subject}"),
        };
    let other = Signer::new("b", "ES256").jwk();
    let but = |name: &str, value: Value| {
        let mut jwk = rsa.jwk();
        jwk[name] = value;
        jwk
    };
    let (unfit, unknown) =
        ("the token's key is not for its algorithm", "the token is signed by an unknown key");
    assert_eq!(refused(ec.jwk(), other.clone()), unfit);
    assert_eq!(refused(but("alg", json!("PS256")), other.clone()), unfit);
    assert_eq!(refused(but("alg", json!("RSA-OAEP")), other.clone()), unfit);
    assert_eq!(refused(but("use", json!("enc")), other.clone()), unknown);
    assert_eq!(refused(but("key_ops", json!(["encrypt"])), other.clone()), unknown);
    assert_eq!(refused(but("kid", json!("c")), other.clone()), unknown);
    assert_eq!(refused(but("n", json!(encode(&[0xff; 128]))), other.clone()), unknown);
    assert_eq!(refused(but("n", json!("+/ no base64url")), other), unknown);
    // A set may have one id twice, for two algorithms.
    assert_eq!(
        rules.subject(&token, Some(&set(&[ec.jwk(), rsa.jwk()])), now()),
        Ok("bot".to_owned())
    );
}

#[test]
fn a_token_that_names_no_key_needs_a_set_with_one_that_would_do() {
    let (rsa, ec, more) =
        (Signer::new("a", "RS256"), Signer::new("b", "ES256"), Signer::new("c", "ES256"));
    let rules = rules(&EVERY);
    let token = ec.token_with(&json!({ "alg": "ES256" }), &claims("bot", now()));
    let subject = |keys: &[Value]| rules.subject(&token, Some(&set(keys)), now());
    assert_eq!(subject(&[rsa.jwk(), ec.jwk()]), Ok("bot".to_owned()));
    assert_eq!(
        subject(&[ec.jwk(), more.jwk()]),
        Err(Refusal::Final("the token names no key, and several would do"))
    );
    assert_eq!(
        subject(&[rsa.jwk()]),
        Err(Refusal::UnknownKey("the token is signed by an unknown key"))
    );
}

#[test]
fn what_a_token_brings_along_is_not_trusted() {
    let (trusted, own) = (Signer::new("a", "ES256"), Signer::new("a", "ES256"));
    let (rules, keys) = (rules(&EVERY), set(&[trusted.jwk()]));
    let claims = claims("bot", now());
    for header in [
        json!({ "alg": "ES256", "kid": "a", "jwk": own.jwk() }),
        json!({ "alg": "ES256", "kid": "a", "jku": "http://127.0.0.1:9/keys" }),
        json!({ "alg": "ES256", "kid": "a", "x5u": "http://127.0.0.1:9/keys" }),
        json!({ "alg": "ES256", "kid": "../../a" }),
    ] {
        assert!(
            rules.subject(&own.token_with(&header, &claims), Some(&keys), now()).is_err(),
            "{header}"
        );
    }
    let critical = json!({ "alg": "ES256", "kid": "a", "crit": ["b64"], "b64": false });
    let refused = rules.subject(&trusted.token_with(&critical, &claims), Some(&keys), now());
    assert_eq!(refused, Err(Refusal::Final("the token has critical extensions")));
    let refused = rules.subject(&trusted.token(&claims), None, now());
    assert_eq!(refused, Err(Refusal::UnknownKey("no key set is loaded yet")));
}

#[test]
fn a_set_of_other_issuers_kinds_of_keys_is_still_a_set() {
    let signer = Signer::new("a", "ES256");
    let keys = json!({ "keys": [
        signer.jwk(), {}, 7, { "kty": "OKP", "crv": "X25519", "x": "AAAA" }, { "kty": "future", "alg": "ML-DSA" },
        { "kty": "EC", "crv": "secp256k1", "x": "AAAA", "y": "AAAA" },
    ] });
    let keys = KeySet::parse(keys.to_string().as_bytes()).unwrap();
    assert_eq!((keys.len(), keys.skipped()), (1, 5));
    for text in ["", "[]", "{}", r#"{"keys": {}}"#, r#"{"keys": []}"#, r#"{"keys": [{}]}"#] {
        assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_verification_panic(text in ".{0,200}") {
        let keys = KeySet::parse(br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"AAAA"}]}"#).unwrap();
        prop_assert!(rules(&EVERY).subject(&text, Some(&keys), now()).is_err());
        let _ = KeySet::parse(text.as_bytes());
    }

    #[test]
    fn no_damage_goes_unnoticed(at in any::<prop::sample::Index>(), byte in "[A-Za-z0-9._-]") {
        let signer = Signer::new("a", "EdDSA");
        let (token, keys) = (signer.token(&claims("bot", now())), set(&[signer.jwk()]));
        let at = at.index(token.len());
        let damaged = format!("{}{byte}{}", &token[..at], &token[at + 1..]);
        prop_assume!(damaged != token);
        prop_assert!(rules(&EVERY).subject(&damaged, Some(&keys), now()).is_err(), "{}", damaged);
    }
}

const EVERY: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDsa,
];
const NOW: SystemTime = SystemTime::UNIX_EPOCH;
