//! What each target does with its bytes, and what must hold whatever they are.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a target fails by panicking"
)]
#![allow(unused_imports, reason = "each target takes one of the bodies")]

mod connect_reply;
mod environment;
mod identity;
mod preface;

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use participant_gateway::admission::Keys;
use participant_gateway::call::Notes;
use participant_gateway::config::shape::Algorithm;
use participant_gateway::config::{self, KeySource, Settings};
use participant_gateway::domain::{Participant, ParticipantToken};
use participant_gateway::error::Error;
use participant_gateway::grpc::{Timeout, decode};
use participant_gateway::identity::jwt::{self, KeySet, NotTaken, Rules, Token};
use participant_gateway::proto;
use prost::Message;

pub use connect_reply::connect_reply;
pub use environment::{no_proxy, otel};
pub use identity::{discovery, xfcc};
pub use preface::preface;

/// A request is taken with every rule of the contract kept, or refused with the rules it breaks.
pub fn request(data: &[u8]) {
    let Ok(message) = proto::CreateParticipantRequest::decode(data) else { return };
    match decode::create_participant(message, false) {
        Ok(call) => {
            let within = |text: &str, max| (1..=max).contains(&text.chars().count());
            assert!(within(call.instance_id.as_str(), 100));
            assert!(within(call.contact_id.as_str(), 256));
            assert!(within(call.display_name.as_str(), 256));
            assert!(call.client_token.is_none_or(|token| within(token.as_str(), 500)));
        }
        Err(Error::InvalidRequest(violations)) => assert!((1..=8).contains(&violations.len())),
        Err(other) => panic!("{other}"),
    }
}

/// A result opens only as it was sealed.
pub fn stored_record(data: &[u8]) {
    static SEALED: LazyLock<(Keys, Vec<u8>)> = LazyLock::new(|| {
        let keys = Keys::parse(None, None).unwrap();
        let participant = Participant {
            id: "participant".to_owned(),
            token: ParticipantToken::new("token".to_owned()),
            expiry: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
            create_time: SystemTime::UNIX_EPOCH,
        };
        let sealed = keys.seal("name", "fingerprint", &participant).unwrap();
        (keys, sealed)
    });
    let (keys, sealed) = &*SEALED;
    assert!(keys.open("name", "fingerprint", data).is_err(), "opened what was never sealed");

    let damage = data.iter().copied().chain(std::iter::repeat(0));
    let damaged: Vec<u8> = sealed.iter().zip(damage).map(|(byte, damage)| byte ^ damage).collect();
    assert_eq!(keys.open("name", "fingerprint", &damaged).is_ok(), damaged == *sealed);
    if let Some(at) = data.first() {
        let cut = &sealed[..usize::from(*at) % sealed.len()];
        assert!(keys.open("name", "fingerprint", cut).is_err());
    }
}

/// A header can make a call fail only by an error of ours. Only checked text of it is echoed.
pub fn metadata(data: &[u8]) {
    static RULES: LazyLock<(Rules, KeySet)> = LazyLock::new(|| {
        let settings = config::Jwt {
            issuer: Some("https://issuer.test".to_owned()),
            audiences: vec!["gateway".to_owned()],
            audience_claim: "aud".to_owned(),
            subject_claim: "sub".to_owned(),
            algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDsa],
            keys: KeySource::File("unused".into()),
        };
        let key =
            br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        (Rules::new(&settings), KeySet::parse(key).unwrap())
    });
    let headers = headers(data);
    if let Timeout::Of(timeout) = Timeout::of(&headers) {
        assert!(timeout <= Duration::from_secs(99_999_999 * 3600));
    }
    let call = Notes::new(&headers);
    let id = call.request_id();
    assert!((1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()));
    if let Ok(token) = jwt::bearer(&headers) {
        let (rules, keys) = &*RULES;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let judged = Token::parse(token).map_err(NotTaken::Final);
        assert!(
            judged.and_then(|token| rules.subject(&token, Some(keys), now)).is_err(),
            "a token was taken that nobody signed"
        );
    }
    let _ = KeySet::parse(data);
}

/// A config is settings or problems, and what is shown of it can be shown.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Settings::parse(text, []) {
        Ok(settings) => assert!(settings.redacted().is_object()),
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}

fn headers(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = line[colon + 1..].trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    headers
}
