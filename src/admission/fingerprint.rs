//! The identity of a call: the record's name, the fingerprint of its content, and the token that
//! Connect gets.
//!
//! All three are keyed hashes of validated fields. They are never hashes of protobuf bytes, which
//! differ between encoders. A caller's retry therefore reaches Connect with the same token, even if
//! every record is lost. The store makes a retry fast and observable, and the token makes it safe.
//! **A change of any value made here causes second participants**; the tests fix these values. New
//! content gets a new version beside the old, because live records are compared at their own
//! version.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::Tag;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::RecordAsk;
use super::keys::{HashUse, Keys, NoRandomness, random};
use crate::domain::{ClientToken, CreateParticipant, Name, UpstreamToken};

impl Keys {
    /// The record of a call; `None` if the call has no client token.
    ///
    /// `retention`: the time from the first claim until the record is forgotten.
    #[must_use]
    pub fn record(
        &self,
        tenant: &Name,
        upstream: &Name,
        call: &CreateParticipant,
        retention: Duration,
    ) -> Option<RecordAsk> {
        self.record_at(VERSION, tenant, upstream, call, retention)
    }

    /// The record of a call as a gateway of that version wrote it, for the comparison with a stored
    /// record. `None` if the call has no client token, or if this gateway does not know the
    /// version.
    #[must_use]
    pub(crate) fn record_at(
        &self,
        version: u8,
        tenant: &Name,
        upstream: &Name,
        call: &CreateParticipant,
        retention: Duration,
    ) -> Option<RecordAsk> {
        let client_token = call.client_token.as_ref()?;
        let name = self.record_name(tenant, upstream, client_token);
        let (tenant, client_token) = (tenant.as_str().as_bytes(), client_token.as_str().as_bytes());
        let fingerprint = text(self.fingerprint(version, call)?);
        let parts = [from_ref(&version), tenant, client_token, fingerprint.as_bytes()];
        let upstream_token = token(text(self.hash(HashUse::UpstreamToken, &parts)));
        let mac = text(self.mac(&name, version, &fingerprint, upstream_token.as_str()));
        Some(RecordAsk {
            name,
            version,
            fingerprint,
            upstream_token,
            mac,
            retention,
            distrust: None,
        })
    }

    /// The name of the record of a tenant's `client_token` on an upstream: a keyed hash, from which
    /// nothing can be read back.
    #[must_use]
    pub fn record_name(
        &self,
        tenant: &Name,
        upstream: &Name,
        client_token: &ClientToken,
    ) -> Arc<str> {
        let parts = [tenant.as_str(), upstream.as_str(), client_token.as_str()];
        text(self.hash(HashUse::RecordName, &parts.map(str::as_bytes)))
    }

    /// Whether a stored record is what a gateway with this root wrote under that name. It is false
    /// for a record that is corrupt, foreign, moved from another name, or older than the root.
    #[must_use]
    pub(crate) fn verify(
        &self,
        name: &str,
        version: u8,
        fingerprint: &str,
        upstream_token: &str,
        mac: &str,
    ) -> bool {
        let expected = text(self.mac(name, version, fingerprint, upstream_token));
        verify_slices_are_equal(expected.as_bytes(), mac.as_bytes()).is_ok()
    }

    fn mac(&self, name: &str, version: u8, fingerprint: &str, upstream_token: &str) -> Tag {
        let parts =
            [name.as_bytes(), &[version], fingerprint.as_bytes(), upstream_token.as_bytes()];
        self.hash(HashUse::RecordMac, &parts)
    }

    /// The keyed hash over the content, in the canonical encoding of that version. It covers the
    /// participant, not the caller: scope and client token are in the record's name.
    fn fingerprint(&self, version: u8, call: &CreateParticipant) -> Option<Tag> {
        match version {
            1 => {
                let capabilities =
                    call.capabilities.map(|c| [u8::from(c.video), u8::from(c.screen_share)]);
                let parts = [
                    from_ref(&version),
                    call.instance_id.as_str().as_bytes(),
                    call.contact_id.as_str().as_bytes(),
                    call.role.as_str().as_bytes(),
                    call.display_name.as_str().as_bytes(),
                    capabilities.as_ref().map_or([].as_slice(), <[u8; 2]>::as_slice),
                ];
                Some(self.hash(HashUse::Fingerprint, &parts))
            }
            _ => None,
        }
    }
}

/// A token for a call without a client token: the same for all attempts of the call, and never used
/// again.
///
/// # Errors
/// [`NoRandomness`] if the system has none.
pub(crate) fn random_token() -> Result<UpstreamToken, NoRandomness> {
    random::<32>().map(|bytes| token(URL_SAFE_NO_PAD.encode(bytes.as_slice()).into()))
}

fn text(tag: Tag) -> Arc<str> {
    URL_SAFE_NO_PAD.encode(tag).into()
}

#[expect(clippy::expect_used, reason = "32 bytes are 43 characters in base64, and 1 to 500 fit")]
fn token(encoded: Arc<str>) -> UpstreamToken {
    UpstreamToken::new(encoded).expect("43 characters fit")
}

/// The version of the canonical encoding that new records get.
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::domain::{Capabilities, ClientToken, ContactId, DisplayName, InstanceId, Role};

    fn keys() -> Keys {
        Keys::parse(Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), None).unwrap()
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn call() -> CreateParticipant {
        CreateParticipant {
            instance_id: InstanceId::new("instance-1").unwrap(),
            contact_id: ContactId::new("contact-1").unwrap(),
            client_token: Some(ClientToken::new("order-42").unwrap()),
            role: Role::CustomBot,
            display_name: DisplayName::new("Bót").unwrap(),
            capabilities: None,
        }
    }

    fn record(call: &CreateParticipant) -> RecordAsk {
        record_of("acme", "main", call)
    }

    fn record_of(tenant: &str, upstream: &str, call: &CreateParticipant) -> RecordAsk {
        keys()
            .record(&name(tenant), &name(upstream), call, Duration::from_hours(24))
            .unwrap()
    }

    /// If this fails, calls that are retried across the release get a second participant: add a
    /// version instead.
    #[test]
    fn names_fingerprints_and_tokens_are_what_they_always_were() {
        let plain = record(&call());
        assert_eq!(plain.version, 1);
        assert_eq!(&*plain.name, "SdUTuK9xefCDNd1p6kkzrzqJM09camlhD-zrJTNWb9Q");
        assert_eq!(&*plain.fingerprint, "XVesn7CQSfuNR_gtZIvzTSbefFPVzPJicmz20iPOKRo");
        assert_eq!(plain.upstream_token.as_str(), "0m0D6z6Xum3pwBYvs2yPOim0G3rUJ5MsvbpUcjmM1QU");
        assert_eq!(&*plain.mac, "kxgYcBBrHj7bckcF7MD2ECzyB4FM0BvlDOdtLNCwSe4");

        let capable = CreateParticipant {
            role: Role::Customer,
            capabilities: Some(Capabilities { video: true, screen_share: false }),
            ..call()
        };
        assert_eq!(&*record(&capable).fingerprint, "_lObsE-_qV4OPA6SNU6qdHnapB_6WnfSwLQLDWwzQow");
        assert_eq!(
            record(&capable).upstream_token.as_str(),
            "cxYaLCvPshKllAQA5GrincDyd7oPyUuduh9TsFbduSk"
        );

        let built_in = Keys::parse(None, None).unwrap();
        let token = built_in
            .record(&name("acme"), &name("main"), &call(), Duration::ZERO)
            .unwrap()
            .upstream_token;
        assert_eq!(token.as_str(), "ctP2JU3SDI-_JseF9xMVRrXv5la1kW2YHYb1fBOn2CQ");
    }

    #[test]
    fn every_field_of_the_content_changes_fingerprint_and_token_but_not_the_name() {
        let capable = |video, screen_share| Some(Capabilities { video, screen_share });
        let others = [
            call(),
            CreateParticipant { instance_id: InstanceId::new("instance-2").unwrap(), ..call() },
            CreateParticipant { contact_id: ContactId::new("contact-2").unwrap(), ..call() },
            CreateParticipant { role: Role::Customer, ..call() },
            CreateParticipant { display_name: DisplayName::new("Bot").unwrap(), ..call() },
            CreateParticipant { capabilities: capable(false, false), ..call() },
            CreateParticipant { capabilities: capable(true, false), ..call() },
            CreateParticipant { capabilities: capable(false, true), ..call() },
            CreateParticipant { capabilities: capable(true, true), ..call() },
        ];
        let records: Vec<_> = others.iter().map(record).collect();
        let distinct =
            |of: fn(&RecordAsk) -> &str| records.iter().map(of).collect::<HashSet<_>>().len();
        assert_eq!(distinct(|r| &r.fingerprint), others.len());
        assert_eq!(distinct(|r| r.upstream_token.as_str()), others.len());
        assert_eq!(distinct(|r| &r.mac), others.len());
        assert_eq!(distinct(|r| &r.name), 1);
    }

    #[test]
    fn a_client_token_is_scoped_to_tenant_and_upstream_and_taken_byte_for_byte() {
        let respelled = CreateParticipant {
            client_token: Some(ClientToken::new("order-42 ").unwrap()),
            ..call()
        };
        let mine = record(&call());
        let (tenant, upstream) =
            (record_of("acme-2", "main", &call()), record_of("acme", "main-2", &call()));
        let names = [&mine, &tenant, &upstream, &record(&respelled)].map(|r| r.name.clone());
        assert_eq!(HashSet::from(names).len(), 4);

        let fingerprints =
            [&mine, &tenant, &upstream, &record(&respelled)].map(|r| r.fingerprint.clone());
        assert_eq!(HashSet::from(fingerprints).len(), 1, "the content is the same");
        assert_ne!(
            mine.upstream_token, tenant.upstream_token,
            "never one tenant's token for another"
        );
        assert_ne!(mine.upstream_token, record(&respelled).upstream_token);
    }

    #[test]
    fn other_roots_make_other_values_and_other_sealing_keys_do_not() {
        let line = crate::admission::keys::keygen().unwrap();
        let of = |keys: Keys| {
            keys.record(&name("acme"), &name("main"), &call(), Duration::ZERO).unwrap()
        };
        let (other, rotated) = (Keys::parse(Some(&line), None).unwrap(), {
            Keys::parse(Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), Some(&line)).unwrap()
        });
        assert_ne!(of(other).upstream_token, of(keys()).upstream_token);
        assert_eq!(of(rotated).mac, of(keys()).mac);
    }

    #[test]
    fn without_a_client_token_there_is_no_record_and_a_token_for_once() {
        let call = CreateParticipant { client_token: None, ..call() };
        assert!(keys().record(&name("acme"), &name("main"), &call, Duration::ZERO).is_none());
        assert_ne!(random_token().unwrap(), random_token().unwrap());
        assert_eq!(random_token().unwrap().as_str().len(), 43);
    }

    #[test]
    fn a_record_of_an_unknown_version_is_nothing_to_compare_with() {
        let at = |version| {
            keys().record_at(version, &name("acme"), &name("main"), &call(), Duration::ZERO)
        };
        assert!(at(VERSION).is_some());
        assert!(at(0).is_none() && at(VERSION + 1).is_none());
    }

    #[test]
    fn a_record_verifies_as_it_was_written_and_in_no_other_way() {
        let RecordAsk { name, version, fingerprint, upstream_token, mac, .. } = record(&call());
        let token = upstream_token.as_str();
        let keys = keys();
        assert!(keys.verify(&name, version, &fingerprint, token, &mac));
        assert!(!keys.verify("another", version, &fingerprint, token, &mac));
        assert!(!keys.verify(&name, version + 1, &fingerprint, token, &mac));
        assert!(!keys.verify(&name, version, &mac, token, &mac));
        assert!(!keys.verify(&name, version, &fingerprint, random_token().unwrap().as_str(), &mac));
        for bad in ["", "é", &mac[1..], &format!("{mac}=")] {
            assert!(!keys.verify(&name, version, &fingerprint, token, bad), "{bad} was taken");
        }
        assert!(!Keys::parse(None, None).unwrap().verify(
            &name,
            version,
            &fingerprint,
            token,
            &mac
        ));
    }
}
