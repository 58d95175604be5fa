use http::HeaderValue;

use super::*;
use crate::domain::{Enforcement, Instances, Name, Rate, TenantLimits};

/// Two tenants: `chat` has two subjects, `voice` one.
fn find(subject: &str) -> Option<Arc<Tenant>> {
    let tenant = match subject {
        BOT | "bot.chat.corp" => "chat",
        "voice.corp" => "voice",
        _ => return None,
    };
    let rate = Rate::new(1.0).unwrap();
    let limits = TenantLimits {
        rate,
        burst: 1,
        committed: rate,
        max_in_flight: 1,
        enforcement: Enforcement::Enforce,
    };
    let name = Name::parse(tenant).unwrap();
    Some(Arc::new(Tenant {
        name,
        instances: Instances::Any,
        roles: Default::default(),
        requires_client_token: false,
        limits,
    }))
}

fn called(format: HeaderFormat, values: &[&[u8]]) -> Result<String, (RefusalKind, Option<String>)> {
    let name = HeaderName::from_static("l5d-client-id");
    let headers = values
        .iter()
        .map(|value| (name.clone(), HeaderValue::from_bytes(value).unwrap()))
        .collect();
    let tenant = Header::new(name, format).tenant(&headers, find);
    tenant
        .map(|tenant| tenant.name.to_string())
        .map_err(|refusal| (refusal.kind, refusal.subject))
}

#[test]
fn a_plain_value_is_a_subject() {
    let called = |values: &[&[u8]]| called(HeaderFormat::Plain, values);
    assert_eq!(called(&[BOT.as_bytes()]), Ok("chat".to_owned()));
    let nobody = (RefusalKind::UnknownTenant, Some("nobody.corp".to_owned()));
    assert_eq!(called(&[b"nobody.corp"]), Err(nobody));
    for (values, kind) in [
        (&[][..], RefusalKind::Missing),
        (&[BOT.as_bytes(), BOT.as_bytes()], RefusalKind::Duplicate),
        (&[b""], RefusalKind::Malformed),
        (&[b"\xff"], RefusalKind::Malformed),
    ] {
        assert_eq!(called(values), Err((kind, None)), "{values:?}");
    }
}

#[test]
fn the_subject_of_an_envoy_header_is_the_uri_of_its_last_element_else_its_dns_names() {
    let called = |value: &str| called(HeaderFormat::Xfcc, &[value.as_bytes()]);
    for value in [
        format!("By=a;Hash=b;Subject=\"CN=x\";URI={BOT}"),
        format!("By=a;URI=spiffe://corp/other,By=a;URI={BOT};DNS=voice.corp"),
        "By=a;URI=;DNS=bot.chat.corp".to_owned(),
        "By=a;DNS=nobody.corp;DNS=bot.chat.corp".to_owned(),
    ] {
        assert_eq!(called(&value), Ok("chat".to_owned()), "{value}");
    }
    let named = |names: &str| Some(names.to_owned());
    for (value, kind, subject) in [
        ("By=a;URI=nobody", RefusalKind::UnknownTenant, named("nobody")),
        (&format!("URI={BOT},URI=nobody"), RefusalKind::UnknownTenant, named("nobody")),
        (&format!("URI={BOT};URI={BOT}"), RefusalKind::Ambiguous, named(&format!("{BOT}, {BOT}"))),
        (
            "DNS=bot.chat.corp;DNS=voice.corp",
            RefusalKind::Ambiguous,
            named("bot.chat.corp, voice.corp"),
        ),
        (&format!("URI={BOT},Hash=b"), RefusalKind::Subject, None),
        (BOT, RefusalKind::Malformed, None),
        (&format!("Subject=\"x,URI={BOT}"), RefusalKind::Malformed, None),
    ] {
        assert_eq!(called(value), Err((kind, subject)), "{value}");
    }
}

#[test]
fn an_envoy_header_that_comes_twice_is_refused() {
    let value = format!("URI={BOT}");
    let called = called(HeaderFormat::Xfcc, &[value.as_bytes(), value.as_bytes()]);
    assert_eq!(called, Err((RefusalKind::Duplicate, None)));
}

const BOT: &str = "spiffe://corp/ns/chat/sa/bot";
