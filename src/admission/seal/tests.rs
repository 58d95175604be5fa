use base64::Engine;
use proptest::prelude::*;

use super::*;
use crate::admission::keys::keygen;

fn keys() -> Keys {
    Keys::parse(None, None).unwrap()
}

fn participant() -> Participant {
    let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    Participant {
        id: "p-1".into(),
        token: ParticipantToken::new("canary-credential".into()),
        expiry: Some(at(1_800_000_000_123)),
        create_time: at(1_763_700_000_000) + Duration::from_nanos(7),
    }
}

#[test]
fn a_result_opens_to_the_same_participant_in_its_own_record_only() {
    let sealed = keys().seal("name", "print", &participant()).unwrap();
    assert_eq!(keys().open("name", "print", &sealed).unwrap(), participant());
    for (name, fingerprint) in
        [("other", "print"), ("name", "other"), ("namep", "rint"), ("nam", "eprint")]
    {
        assert_eq!(keys().open(name, fingerprint, &sealed), Err(OpenError::NotAuthentic));
    }
}

#[test]
fn nothing_of_the_credential_is_readable_and_no_two_seals_are_alike() {
    let seal = || keys().seal("name", "print", &participant()).unwrap();
    let readable = |bytes: &[u8]| bytes.windows(6).any(|part| part == b"canary");
    assert!(!readable(&seal()));
    assert_ne!(seal(), seal());
    assert!(
        !format!("{:?} {:?}", Payload::of(&participant()), keys().opens().next().unwrap().cipher)
            .contains("canary")
    );
}

#[test]
fn keys_rotate_without_losing_a_result() {
    let (old, new) = (keygen().unwrap(), keygen().unwrap());
    let with = |lines: &[&str]| {
        Keys::parse(
            None,
            Some(&lines.join(
                "
",
            )),
        )
        .unwrap()
    };
    let (before, prepared, moved, dropped) =
        (with(&[&old]), with(&[&old, &new]), with(&[&new, &old]), with(&[&new]));

    let by_old = before.seal("name", "print", &participant()).unwrap();
    let by_new = moved.seal("name", "print", &participant()).unwrap();
    for keys in [&prepared, &moved] {
        assert_eq!(keys.open("name", "print", &by_old).unwrap(), participant());
        assert_eq!(keys.open("name", "print", &by_new).unwrap(), participant());
    }
    assert!(
        before
            .open("name", "print", &prepared.seal("name", "print", &participant()).unwrap())
            .is_ok()
    );
    assert_eq!(dropped.open("name", "print", &by_old), Err(OpenError::UnknownKey));
    assert!(dropped.open("name", "print", &by_new).is_ok());
}

#[test]
fn authentic_bytes_that_are_no_participant_are_malformed() {
    let whole = Payload::of(&participant());
    let odd = [
        Payload { id: String::new(), ..whole.clone() },
        Payload { token: String::new(), ..whole.clone() },
        Payload { create_time: None, ..whole.clone() },
        Payload { expiry: Some(Time { seconds: i64::MAX, nanos: u32::MAX }), ..whole.clone() },
        Payload { expiry: Some(Time { seconds: i64::MIN, nanos: 0 }), ..whole.clone() },
        Payload { expiry: Some(Time { seconds: 0, nanos: 1_000_000_000 }), ..whole },
    ];
    // The smallest time is one that this platform has.
    let refused = odd.map(|payload| {
        let sealed = keys().seal_bytes("name", "print", payload.encode_to_vec()).unwrap();
        keys().open("name", "print", &sealed).is_err()
    });
    assert_eq!(refused, [true, true, true, true, false, true]);
}

#[test]
fn an_absent_expiry_stays_absent() {
    let eternal = Participant { expiry: None, ..participant() };
    let sealed = keys().seal("name", "print", &eternal).unwrap();
    assert_eq!(keys().open("name", "print", &sealed).unwrap(), eternal);
}

#[test]
fn a_result_of_the_first_release_still_opens() {
    let sealed = base64::engine::general_purpose::STANDARD.decode(PINNED).unwrap();
    assert_eq!(keys().open("name", "print", &sealed).unwrap(), participant());
}

proptest! {
    #[test]
    fn no_bytes_make_opening_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), known in any::<bool>()) {
        let mut sealed = vec![FORMAT_VERSION];
        sealed.extend(keys().seals().id);
        sealed.extend(&bytes);
        let any = if known { &sealed } else { &bytes };
        prop_assert!(keys().open("name", "print", any).is_err());
    }

    #[test]
    fn no_authentic_payload_makes_opening_panic(payload in prop::collection::vec(any::<u8>(), 0..100)) {
        let sealed = keys().seal_bytes("name", "print", payload).unwrap();
        let _either = keys().open("name", "print", &sealed);
    }

    #[test]
    fn every_altered_byte_and_every_cut_is_noticed(at in any::<prop::sample::Index>(), flip in 1..=u8::MAX) {
        let sealed = keys().seal("name", "print", &participant()).unwrap();
        let at = at.index(sealed.len());
        prop_assert!(keys().open("name", "print", &sealed[..at]).is_err());
        let mut altered = sealed;
        altered[at] ^= flip;
        prop_assert!(keys().open("name", "print", &altered).is_err());
    }

    #[test]
    fn times_come_back_to_the_nanosecond(seconds in -10_000_000_000..10_000_000_000_i64, nanos in 0..1_000_000_000_u32) {
        let time = Time { seconds, nanos };
        prop_assert_eq!(Time::of(time.system_time().unwrap()), time);
    }
}

const PINNED: &str = "AVEzYSStg5zhE+3fHX0FuUR4BxRMjalI3EYHVQEthxqE/pjQLxv7Zu9ALEpZb1pPE2EGQMhwBMfbLd+hdQA9Z693uGZXSVZ9YnATZ6wKe03i1gGP";
