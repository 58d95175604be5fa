use rcgen::{CertificateParams, KeyPair, SanType};

use super::*;
use crate::domain::{Enforcement, Instances, Name, Rate, TenantLimits};

fn names(list: &[(&str, &str)]) -> ClientNames {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "bot.chat.corp");
    params.subject_alt_names = list
        .iter()
        .map(|(kind, name)| match *kind {
            "uri" => SanType::URI((*name).try_into().unwrap()),
            "dns" => SanType::DnsName((*name).try_into().unwrap()),
            "mail" => SanType::Rfc822Name((*name).try_into().unwrap()),
            _ => SanType::IpAddress(name.parse().unwrap()),
        })
        .collect();
    ClientNames::of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
}

/// Two tenants: `chat` has two names, `voice` one.
fn find(name: &str) -> Option<Arc<Tenant>> {
    let tenant = match name {
        SPIFFE | "bot.chat.corp" => "chat",
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

fn refusal(names: Option<&ClientNames>) -> (RefusalKind, Option<String>) {
    let refusal = tenant(names, find).expect_err("the certificate was taken");
    (refusal.kind, refusal.subject)
}

/// A refusal of names that no tenant has, with the names.
fn unknown(name: &str) -> (RefusalKind, Option<String>) {
    (RefusalKind::UnknownTenant, Some(name.to_owned()))
}

#[test]
fn a_uri_or_a_dns_name_maps_to_its_tenant() {
    for list in [
        &[("uri", SPIFFE)][..],
        &[("dns", "bot.chat.corp")],
        &[("dns", "bot.chat.corp"), ("uri", SPIFFE)],
        &[("dns", "unknown.corp"), ("uri", SPIFFE), ("ip", "10.0.0.1")],
    ] {
        assert_eq!(tenant(Some(&names(list)), find).unwrap().name.as_str(), "chat", "{list:?}");
    }
}

#[test]
fn names_are_compared_exactly_and_the_common_name_is_none() {
    for name in [
        "spiffe://corp/ns/chat/sa/bot/",
        "spiffe://CORP/ns/chat/sa/bot",
        "spiffe://corp/ns/chat/sa/bo",
    ] {
        assert_eq!(refusal(Some(&names(&[("uri", name)]))), unknown(name));
    }
    for name in ["*.chat.corp", "chat.corp", "bot.chat.corp.evil.test"] {
        assert_eq!(refusal(Some(&names(&[("dns", name)]))), unknown(name));
    }
    let nameless = (RefusalKind::UnknownTenant, None);
    assert_eq!(refusal(Some(&names(&[]))), nameless);
    assert_eq!(refusal(Some(&names(&[("mail", "bot@chat.corp")]))), nameless);
}

#[test]
fn names_of_two_tenants_are_refused() {
    let both = names(&[("uri", SPIFFE), ("dns", "voice.corp")]);
    let named = format!("{SPIFFE}, voice.corp");
    assert_eq!(refusal(Some(&both)), (RefusalKind::Ambiguous, Some(named)));
}

#[test]
fn no_certificate_or_an_unreadable_one_is_no_credential() {
    assert_eq!(refusal(None), (RefusalKind::NoCertificate, None));
    for bytes in [&[][..], &[0x30, 0x80], &[0xff; 64]] {
        assert_eq!(refusal(Some(&ClientNames::of(bytes))), (RefusalKind::Malformed, None));
    }
}

const SPIFFE: &str = "spiffe://corp/ns/chat/sa/bot";
