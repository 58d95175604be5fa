//! One token against one set: each fault has its own reason.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::issuer::{encode, unsigned};
use super::*;
use crate::error::RefusalKind as Kind;

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

/// The subject of a token, or the kind and the text of its refusal.
fn judged(
    rules: &Rules,
    token: &str,
    keys: Option<&KeySet>,
) -> Result<String, (Kind, &'static str)> {
    let token = Token::parse(token).map_err(NotTaken::Final);
    let judged = token.and_then(|token| rules.subject(&token, keys, now()));
    judged
        .map_err(NotTaken::into_refusal)
        .map_err(|refusal| (refusal.kind, refusal.detail))
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
            judged(&rules(&[*algorithm]), &token, Some(&keys)),
            Ok("bot".to_owned()),
            "{name}"
        );
        let others: Vec<_> = EVERY.into_iter().filter(|other| other != algorithm).collect();
        let refused = judged(&rules(&others), &token, Some(&keys));
        assert_eq!(
            refused,
            Err((Kind::Algorithm, "the token's algorithm is not allowed")),
            "{name}"
        );
    }
}

#[test]
fn every_claim_is_checked_with_a_leeway_of_a_minute() {
    let signer = Signer::new("a", "ES256");
    let (rules, keys) = (rules(&EVERY), set(&[signer.jwk()]));
    let at = |offset: i64| 1_800_000_000 + offset;
    for (claims, kind, reason) in [
        (without("exp"), Kind::Malformed, "the token has no expiry"),
        (with(json!({ "exp": "tomorrow" })), Kind::Malformed, "the token's expiry is no time"),
        (with(json!({ "exp": null })), Kind::Malformed, "the token's expiry is no time"),
        (with(json!({ "exp": at(-60) })), Kind::Expired, "the token has expired"),
        (with(json!({ "exp": -1 })), Kind::Expired, "the token has expired"),
        (with(json!({ "nbf": at(61) })), Kind::NotYetValid, "the token is not valid yet"),
        (with(json!({ "nbf": "now" })), Kind::Malformed, "the token's not-before is no time"),
        (without("aud"), Kind::Audience, "the token has no audience"),
        (with(json!({ "aud": "another" })), Kind::Audience, "the token is for another audience"),
        (with(json!({ "aud": [] })), Kind::Audience, "the token is for another audience"),
        (with(json!({ "aud": ["a", "b"] })), Kind::Audience, "the token is for another audience"),
        (
            with(json!({ "aud": { AUDIENCE: true } })),
            Kind::Audience,
            "the token is for another audience",
        ),
        (without("sub"), Kind::Subject, "the token has no subject"),
        (with(json!({ "sub": "" })), Kind::Subject, "the token's subject is no text, or empty"),
        (with(json!({ "sub": 7 })), Kind::Subject, "the token's subject is no text, or empty"),
        (
            with(json!({ "sub": ["bot"] })),
            Kind::Subject,
            "the token's subject is no text, or empty",
        ),
    ] {
        let refused = judged(&rules, &signer.token(&claims), Some(&keys));
        assert_eq!(refused, Err((kind, reason)), "{claims}");
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
            judged(&rules, &signer.token(&claims), Some(&keys)),
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
    assert_eq!(judged(&rules, &token, Some(&keys)), Ok("chat".to_owned()));
    let token = signer.token(&claims("bot", now()));
    assert_eq!(
        judged(&rules, &token, Some(&keys)),
        Err((Kind::Subject, "the token has no subject"))
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
                matches!(judged(&rules, &token, Some(&keys)), Err((Kind::Algorithm, _))),
                "{algorithm}"
            );
        }
    }
    let token = format!("{}.", unsigned(&json!({ "alg": "RS256", "kid": "a" }), &claims));
    assert_eq!(
        judged(&rules, &token, Some(&keys)),
        Err((Kind::Signature, "the token's signature is wrong"))
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
        let refused = judged(&rules(&EVERY), &token, Some(&set(std::slice::from_ref(&jwk))));
        assert_eq!(refused, Err((Kind::Algorithm, "the token's algorithm is not allowed")));
    }
    // A shared secret in the set is never used as a key, whatever it claims to be.
    let secret = json!({ "kty": "oct", "kid": "a", "k": encode(b"secret"), "alg": "RS256" });
    assert!(KeySet::parse(json!({ "keys": [secret] }).to_string().as_bytes()).is_err());
}

#[test]
fn a_key_serves_only_what_its_kind_use_and_algorithm_allow() {
    let (rsa, ec) = (Signer::new("a", "RS256"), Signer::new("a", "ES256"));
    let rules = rules(&EVERY);
    let token = rsa.token(&claims("bot", now()));
    let refused = |jwk: Value, other: Value| match judged(&rules, &token, Some(&set(&[jwk, other])))
    {
        Err(refused) => refused,
        Ok(subject) => panic!("{subject}"),
    };
    let other = Signer::new("b", "ES256").jwk();
    let but = |name: &str, value: Value| {
        let mut jwk = rsa.jwk();
        jwk[name] = value;
        jwk
    };
    let unfit = (Kind::Algorithm, "the token's key is not for its algorithm");
    let unknown = (Kind::UnknownKey, "the token is signed by an unknown key");
    assert_eq!(refused(ec.jwk(), other.clone()), unfit);
    assert_eq!(refused(but("alg", json!("PS256")), other.clone()), unfit);
    assert_eq!(refused(but("alg", json!("RSA-OAEP")), other.clone()), unfit);
    assert_eq!(refused(but("use", json!("enc")), other.clone()), unknown);
    assert_eq!(refused(but("key_ops", json!(["encrypt"])), other.clone()), unknown);
    assert_eq!(refused(but("kid", json!("c")), other.clone()), unknown);
    assert_eq!(refused(but("n", json!(encode(&[0xff; 128]))), other.clone()), unknown);
    assert_eq!(refused(but("n", json!("+/ no base64url")), other), unknown);
    // A set may have one id twice, for two algorithms.
    assert_eq!(judged(&rules, &token, Some(&set(&[ec.jwk(), rsa.jwk()]))), Ok("bot".to_owned()));
}

#[test]
fn a_token_that_names_no_key_is_tried_against_every_fitting_one() {
    let (rsa, ec, more) =
        (Signer::new("a", "RS256"), Signer::new("b", "ES256"), Signer::new("c", "ES256"));
    let rules = rules(&EVERY);
    let token = ec.token_with(&json!({ "alg": "ES256" }), &claims("bot", now()));
    let subject = |keys: &[Value]| judged(&rules, &token, Some(&set(keys)));
    let mut unnamed = ec.jwk();
    unnamed.as_object_mut().unwrap().remove("kid");
    for keys in [
        vec![rsa.jwk(), ec.jwk()],
        vec![ec.jwk(), more.jwk()],
        vec![more.jwk(), ec.jwk()],
        vec![more.jwk(), unnamed],
    ] {
        assert_eq!(subject(&keys), Ok("bot".to_owned()), "{keys:?}");
    }
    let wrong = (Kind::Signature, "the token's signature is wrong");
    assert_eq!(subject(&[rsa.jwk(), more.jwk()]), Err(wrong));
    let unknown = (Kind::UnknownKey, "the token is signed by an unknown key");
    assert_eq!(subject(&[rsa.jwk()]), Err(unknown));

    let mut many: Vec<_> = (0..15).map(|_| Signer::new("x", "ES256").jwk()).collect();
    many.push(ec.jwk());
    assert_eq!(subject(&many), Ok("bot".to_owned()));
    many.insert(0, more.jwk());
    assert_eq!(subject(&many), Err(wrong), "more than 16 keys were tried");
}

#[test]
fn a_newer_set_can_only_help_where_the_key_may_be_missing() {
    let (known, other) = (Signer::new("a", "ES256"), Signer::new("b", "ES256"));
    let keys = set(&[known.jwk()]);
    let (rules, claims) = (rules(&EVERY), claims("bot", now()));
    let may_help = |token: &str, keys: Option<&KeySet>| match rules
        .subject(&Token::parse(token).unwrap(), keys, now())
        .unwrap_err()
    {
        NotTaken::ByTheseKeys(_) => true,
        NotTaken::Final(_) => false,
    };
    assert!(may_help(&known.token(&claims), None));
    assert!(may_help(&other.token(&claims), Some(&keys)));
    assert!(may_help(&other.token_with(&json!({ "alg": "ES256" }), &claims), Some(&keys)));
    let forged = other.token_with(&json!({ "alg": "ES256", "kid": "a" }), &claims);
    assert!(!may_help(&forged, Some(&keys)));
    assert!(!may_help(&known.token(&with(json!({ "exp": 0 }))), Some(&keys)));
}

#[test]
fn a_remembered_signature_outlives_neither_its_token_nor_its_key_nor_a_change_of_the_rules() {
    let (signer, successor) = (Signer::new("a", "ES256"), Signer::new("a", "ES256"));
    let (keys, every) = (set(&[signer.jwk()]), rules(&EVERY));
    let text = signer.token(&claims("bot", now()));
    let token = Token::parse(&text).unwrap();
    for _ in 0..2 {
        assert_eq!(every.subject(&token, Some(&keys), now()), Ok("bot".to_owned()));
    }
    let later = now() + Duration::from_hours(24);
    let expired = every.subject(&token, Some(&keys), later).unwrap_err().into_refusal();
    assert_eq!(expired.kind, Kind::Expired);
    let others = rules(&[Algorithm::RS256]);
    assert_eq!(judged(&others, &text, Some(&keys)).unwrap_err().0, Kind::Algorithm);
    let newer = set(&[successor.jwk()]);
    assert_eq!(judged(&every, &text, Some(&newer)).unwrap_err().0, Kind::Signature);
}

#[test]
fn a_key_of_spiffes_signs_tokens_and_one_of_its_certificates_does_not() {
    let signer = Signer::new("a", "ES256");
    let of_use = |purpose: &str| {
        let mut jwk = signer.jwk();
        jwk["use"] = purpose.into();
        KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes())
    };
    let token = signer.token(&without("iss"));
    let keys = of_use("jwt-svid").unwrap();
    assert_eq!(judged(&rules(&EVERY), &token, Some(&keys)), Ok("bot".to_owned()));
    assert!(of_use("x509-svid").is_err());
}

#[test]
fn one_of_several_audiences_in_the_claim_of_the_config_is_enough() {
    let signer = Signer::new("a", "RS256");
    let keys = set(&[signer.jwk()]);
    let settings = config::Jwt {
        audiences: vec!["app-1".to_owned(), "app-2".to_owned()],
        audience_claim: "client_id".to_owned(),
        ..settings(KeySource::File("unused".into()), &EVERY)
    };
    let judged =
        |claims: &Value| judged(&Rules::new(&settings), &signer.token(claims), Some(&keys));
    for claims in [
        with(json!({ "client_id": "app-2", "aud": null })),
        with(json!({ "client_id": ["other", "app-1"], "aud": "other" })),
    ] {
        assert_eq!(judged(&claims), Ok("bot".to_owned()), "{claims}");
    }
    let foreign = (Kind::Audience, "the token is for another audience");
    assert_eq!(judged(&with(json!({ "client_id": "app-3", "aud": "app-1" }))), Err(foreign));
    let none = (Kind::Audience, "the token has no audience");
    assert_eq!(judged(&with(json!({ "aud": "app-1" }))), Err(none));
}

#[test]
fn the_subject_is_told_of_where_the_signature_was_good_and_never_else() {
    let (signer, stranger) = (Signer::new("a", "ES256"), Signer::new("a", "ES256"));
    let (rules, keys) = (rules(&EVERY), set(&[signer.jwk()]));
    let told = |token: &str| {
        let refused = rules.subject(&Token::parse(token).unwrap(), Some(&keys), now());
        refused.unwrap_err().into_refusal().subject
    };
    for changes in [json!({ "exp": 0 }), json!({ "nbf": 2e9 }), json!({ "aud": "other" })] {
        let claims = with(changes);
        assert_eq!(told(&signer.token(&claims)).as_deref(), Some("bot"), "{claims}");
        assert_eq!(told(&stranger.token(&claims)), None, "{claims}");
    }
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
            judged(&rules, &own.token_with(&header, &claims), Some(&keys)).is_err(),
            "{header}"
        );
    }
    let critical = json!({ "alg": "ES256", "kid": "a", "crit": ["b64"], "b64": false });
    let refused = judged(&rules, &trusted.token_with(&critical, &claims), Some(&keys));
    assert_eq!(refused, Err((Kind::Malformed, "the token has critical extensions")));
    let refused = judged(&rules, &trusted.token(&claims), None);
    assert_eq!(refused, Err((Kind::NoKeys, "no key set is loaded yet")));
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
        prop_assert!(judged(&rules(&EVERY), &text, Some(&keys)).is_err());
        let _ = KeySet::parse(text.as_bytes());
    }

    #[test]
    fn no_damage_goes_unnoticed(at in any::<prop::sample::Index>(), byte in "[A-Za-z0-9._-]") {
        let signer = Signer::new("a", "EdDSA");
        let (token, keys) = (signer.token(&claims("bot", now())), set(&[signer.jwk()]));
        let at = at.index(token.len());
        let damaged = format!("{}{byte}{}", &token[..at], &token[at + 1..]);
        prop_assume!(damaged != token);
        prop_assert!(judged(&rules(&EVERY), &damaged, Some(&keys)).is_err(), "{}", damaged);
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
