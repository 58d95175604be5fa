//! `identity` and the tenants' subjects.

use participant_gateway::config::json_schema;
use serde_json::{Value, json};

use super::{good, parse, problems};
use crate::support::set;

/// A good config by token, with this as `identity.jwt`.
fn by_token(jwt: Value) -> Value {
    let mut config = good();
    set(&mut config, "/identity", json!({ "mode": "jwt", "jwt": jwt }));
    set(&mut config, "/tenants/acme/subjects", json!(["bot"]));
    config
}

fn entry(changes: Value) -> Value {
    let mut entry = json!({ "issuer": "https://a", "audience": "gateway" });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(entry.as_object_mut().unwrap().remove(name)),
            value => entry[name] = value.clone(),
        }
    }
    entry
}

/// What a good config is warned of for its identity, as lines.
fn warnings(config: &Value) -> Vec<String> {
    let settings = parse(config, &[]).unwrap_or_else(|problems| panic!("{config}: {problems:?}"));
    let lines = settings.warnings.iter().map(ToString::to_string);
    lines.filter(|line| line.starts_with("identity.")).collect()
}

#[test]
fn one_issuer_or_a_list_with_one_audience_or_a_list_is_taken() {
    let file = env!("CARGO_MANIFEST_DIR").to_owned() + "/Cargo.toml";
    let good_entries = [
        entry(json!({})),
        entry(json!({ "issuer": "http://a:8080/x/" })),
        entry(json!({ "audience": ["a", "b"], "audience_claim": "client_id" })),
        entry(json!({ "issuer": "not a url", "jwks_url": "https://a/keys" })),
        entry(json!({ "issuer": "not a url", "jwks_file": file })),
        entry(json!({ "issuer": null, "jwks_url": "http://a/keys" })),
        entry(json!({ "jwks_ca_file": file, "jwks_token_file": file })),
        entry(
            json!({ "algorithms": ["RS384", "RS512", "PS256", "PS384", "PS512", "ES384", "EdDSA"] }),
        ),
    ];
    for entry in good_entries {
        assert_eq!(warnings(&by_token(entry.clone())), [""; 0], "{entry}");
        assert_eq!(warnings(&by_token(json!([entry]))), [""; 0], "{entry}");
    }
    let three = json!([
        entry(json!({})),
        entry(json!({ "issuer": "https://a/" })),
        entry(json!({ "issuer": null, "jwks_file": file })),
    ]);
    assert_eq!(warnings(&by_token(three)), [""; 0]);
}

#[test]
fn what_an_entry_lacks_or_has_too_much_is_named() {
    let rows = [
        (json!({ "audience": null }), "audience", "an audience"),
        (json!({ "audience": [] }), "audience", "at least one"),
        (json!({ "audience": "" }), "audience", "an audience"),
        (json!({ "audience": ["a", ""] }), "audience[1]", "an audience"),
        (json!({ "audience": ["a", 7] }), "audience[1]", "a string"),
        (json!({ "audience": { "a": 1 } }), "audience", "a string"),
        (json!({ "audience_claim": "" }), "audience_claim", "a claim's name"),
        (json!({ "issuer": "" }), "issuer", "iss"),
        (json!({ "issuer": null }), "issuer", "one of jwks_url and jwks_file"),
        (json!({ "issuer": "no url" }), "issuer", "jwks_url"),
        (json!({ "issuer": "https://a?b" }), "issuer", "query"),
        (json!({ "issuer": "https://" }), "issuer", "http:// or https://"),
        (json!({ "jwks_url": "ftp://a" }), "jwks_url", "http:// or https://"),
        (json!({ "jwks_url": "https://u:p@a/" }), "jwks_url", "user information"),
        (json!({ "jwks_url": "https://a", "jwks_file": "b" }), "jwks_file", "only one"),
        (json!({ "jwks_file": "" }), "jwks_file", "path"),
        (json!({ "jwks_ca_file": "" }), "jwks_ca_file", "path"),
        (json!({ "jwks_file": "a", "jwks_ca_file": "b" }), "jwks_ca_file", "jwks_file"),
        (json!({ "jwks_file": "a", "jwks_token_file": "b" }), "jwks_token_file", "jwks_file"),
        (json!({ "algorithms": [] }), "algorithms", "at least one"),
        (json!({ "algorithms": ["RS256", "HS256"] }), "algorithms[1]", "RS256"),
        (json!({ "jwks": 1 }), "jwks", "a known key"),
    ];
    for (changes, key, expected) in rows {
        let entry = entry(changes.clone());
        for (config, path) in [
            (by_token(entry.clone()), format!("identity.jwt.{key}")),
            (by_token(json!([entry])), format!("identity.jwt[0].{key}")),
        ] {
            let found = problems(&config, &[]);
            assert_eq!(found.len(), 1, "{changes}: {found:?}");
            assert_eq!(found[0].path, path, "{changes}: {found:?}");
            assert!(found[0].expected.contains(expected), "{changes}: {}", found[0]);
            assert!(!found[0].to_string().contains("u:p@"), "{}", found[0]);
        }
    }
    for (jwt, expected) in
        [(json!([]), "at least one"), (json!(7), "a mapping"), (json!("a"), "a mapping")]
    {
        let found = problems(&by_token(jwt), &[]);
        assert!(
            found[0].path == "identity.jwt" && found[0].expected.contains(expected),
            "{found:?}"
        );
    }
}

#[test]
fn no_two_entries_have_one_issuer_and_one_at_most_has_none() {
    for issuer in [json!("https://a"), Value::Null] {
        let entries: Vec<_> = ["x", "y"]
            .map(|audience| {
                let keys = "https://keys/";
                entry(json!({ "issuer": issuer, "audience": audience, "jwks_url": keys }))
            })
            .into();
        let found = problems(&by_token(json!(entries)), &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path, "identity.jwt[1].issuer");
        assert!(found[0].expected.contains("identity.jwt[0].issuer"), "{}", found[0]);
    }
}

#[test]
fn a_file_that_is_not_there_and_a_token_in_the_clear_are_warned_of() {
    let missing = json!({ "jwks_ca_file": "/nowhere/ca", "jwks_token_file": "/nowhere/token" });
    let lines = warnings(&by_token(json!([entry(missing)])));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("identity.jwt[0].jwks_ca_file: \"/nowhere/ca\":"), "{lines:?}");
    assert!(lines[1].starts_with("identity.jwt[0].jwks_token_file:"), "{lines:?}");
    let lines = warnings(&by_token(entry(json!({ "jwks_file": "/nowhere/keys" }))));
    assert!(lines[0].contains("identity.jwt.jwks_file"), "{lines:?}");
    let file = env!("CARGO_MANIFEST_DIR").to_owned() + "/Cargo.toml";
    let clear = json!({ "issuer": "http://a", "jwks_token_file": file });
    let lines = warnings(&by_token(entry(clear)));
    assert!(lines.len() == 1 && lines[0].contains("https"), "{lines:?}");
}

#[test]
fn an_environment_can_set_an_entry_and_a_list() {
    let set = |name, value| (name, value);
    let environment = [
        set("PARTICIPANT_GATEWAY__IDENTITY__JWT__ISSUER", "https://a"),
        set("PARTICIPANT_GATEWAY__IDENTITY__JWT__AUDIENCE", r#"["a", "b"]"#),
        set("PARTICIPANT_GATEWAY__IDENTITY__JWT__AUDIENCE_CLAIM", "123"),
    ];
    let shown = parse(&by_token(json!({})), &environment).unwrap().redacted();
    assert_eq!(shown["identity"]["jwt"]["audience"], json!(["a", "b"]));
    assert_eq!(shown["identity"]["jwt"]["audience_claim"], "123");
    let environment = [set("PARTICIPANT_GATEWAY__IDENTITY__JWT__AUDIENCE", "123")];
    let shown = parse(&by_token(entry(json!({}))), &environment).unwrap().redacted();
    assert_eq!(shown["identity"]["jwt"]["audience"], "123");
}

#[test]
fn a_star_is_only_allowed_at_the_end_and_no_subject_is_two_tenants() {
    let two = |mode: &str, acme: Value, other: Value| {
        let mut config = by_token(entry(json!({})));
        set(&mut config, "/identity/mode", json!(mode));
        set(&mut config, "/tenants/acme/subjects", acme);
        let tenant = json!({ "instances": ["i-1"], "rate": "1/s", "burst": 1, "subjects": other });
        set(&mut config, "/tenants/other", tenant);
        let found = parse(&config, &[]).err().unwrap_or_default();
        found.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
    };
    for bad in ["*", "*a", "a*b", "a**", ""] {
        let found = two("jwt", json!(["a*", bad]), json!(["b"]));
        assert_eq!(found, ["tenants.acme.subjects[1]"], "{bad}");
    }
    assert_eq!(two("jwt", json!(["a*"]), json!(["b", "a*"])), ["tenants.other.subjects[1]"]);
    assert_eq!(two("jwt", json!(["a", "a"]), json!(["a*", "ab*"])), [""; 0]);
    // Only in header mode a tenant's name is a subject.
    assert_eq!(two("jwt", json!(["other"]), json!(["acme"])), [""; 0]);
    let found = two("header", json!(["other"]), json!(["acme", "other"]));
    assert_eq!(found, ["tenants.acme.subjects[0]", "tenants.other.subjects[0]"]);
    assert_eq!(two("header", json!([]), json!([])), [""; 0]);
}

#[test]
fn envoys_header_has_its_own_name_by_default() {
    let named = |header: Value| {
        let mut config = good();
        set(&mut config, "/identity/header", header);
        parse(&config, &[]).unwrap().redacted()["identity"]["header"]["name"].clone()
    };
    assert_eq!(named(json!({})), "x-tenant-id");
    assert_eq!(named(json!({ "format": "xfcc" })), "x-forwarded-client-cert");
    assert_eq!(named(json!({ "format": "xfcc", "name": "X-Client" })), "X-Client");
    let mut config = good();
    set(&mut config, "/identity/header", json!({ "format": "json" }));
    assert_eq!(problems(&config, &[])[0].path, "identity.header.format");
}

#[test]
fn the_header_limit_has_bounds() {
    for (bytes, is_good) in [(4095, false), (4096, true), (65_536, true), (65_537, false)] {
        let mut config = good();
        set(&mut config, "/server/max_header_bytes", json!(bytes));
        let found = parse(&config, &[]);
        assert_eq!(found.is_ok(), is_good, "{bytes}");
        if let Err(found) = found {
            assert_eq!(found[0].path, "server.max_header_bytes");
            assert!(found[0].expected.contains("4096 to 65536"), "{}", found[0]);
        }
    }
}

#[test]
fn the_schema_knows_one_or_a_list() {
    let schema = json_schema();
    let at = |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"));
    let jwt = at("/$defs/Identity/properties/jwt").to_string();
    let named = "#/$defs/OneOrManyJwtIdentity";
    assert!(jwt.contains(named), "{jwt}");
    let one = json!({ "$ref": "#/$defs/JwtIdentity" });
    let list = json!({ "type": "array", "items": one, "minItems": 1 });
    assert_eq!(*at("/$defs/OneOrManyJwtIdentity"), json!({ "anyOf": [one, list] }));
    assert_eq!(*at("/$defs/JwtIdentity/required"), json!(["audience"]));
    let bytes = at("/$defs/Server/properties/max_header_bytes");
    assert_eq!((&bytes["minimum"], &bytes["maximum"]), (&json!(4096), &json!(65536)), "{bytes}");
}
