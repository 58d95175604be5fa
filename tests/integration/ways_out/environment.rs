//! Lists from the environment: JSON, or one text with commas.

use participant_gateway::config::Settings;
use serde_json::{Value, json};

use super::{config, row};
use crate::support::set;

fn effective(config: &Value, name: &str, value: &str) -> Result<Value, String> {
    let name = format!("PARTICIPANT_GATEWAY__{name}");
    Settings::parse(&config.to_string(), [(name, value.to_owned())])
        .map(|settings| settings.redacted())
        .map_err(|problems| problems.to_string())
}

#[test]
fn a_list_is_json_or_one_text_with_commas() {
    let config = config(json!({}));
    for (value, expected) in [
        ("redis://one:6379", json!(["redis://one:6379"])),
        ("redis://one:1,redis://two:2", json!(["redis://one:1", "redis://two:2"])),
        (" redis://one:1 , redis://two:2, ", json!(["redis://one:1", "redis://two:2"])),
        (r#"["redis://one:1", "redis://two:2"]"#, json!(["redis://one:1", "redis://two:2"])),
    ] {
        let seen = effective(&config, "STORE__REDIS__URLS", value).unwrap();
        assert_eq!(seen["store"]["redis"]["urls"], expected, "{value}");
        row(&format!("STORE__REDIS__URLS={value}"), &seen["store"]["redis"]["urls"]);
    }
    for (name, value, pointer, expected) in [
        ("TENANTS__DEMO__INSTANCES", "i-1,i-2", "/tenants/demo/instances", json!(["i-1", "i-2"])),
        ("TENANTS__DEMO__INSTANCES", "*", "/tenants/demo/instances", json!(["*"])),
        ("TENANTS__DEMO__INSTANCES", "1234", "/tenants/demo/instances", json!(["1234"])),
        ("TENANTS__DEMO__INSTANCES", "007,1e3", "/tenants/demo/instances", json!(["007", "1e3"])),
        ("TENANTS__DEMO__ROLES", "CUSTOM_BOT", "/tenants/demo/roles", json!(["CUSTOM_BOT"])),
        (
            "TENANTS__DEMO__SUBJECTS",
            "system:serviceaccount:chat:bot,spiffe://corp/a",
            "/tenants/demo/subjects",
            json!(["system:serviceaccount:chat:bot", "spiffe://corp/a"]),
        ),
    ] {
        let seen = effective(&config, name, value).unwrap();
        assert_eq!(seen.pointer(pointer), Some(&expected), "{name}={value}");
    }
}

#[test]
fn what_is_no_list_is_named_with_both_forms() {
    let config = config(json!({}));
    let told = effective(&config, "TENANTS__DEMO__ROLES", "CUSTOM_BOT,JESTER").unwrap_err();
    assert!(told.starts_with("tenants.demo.roles[1]: \"JESTER\""), "{told}");
    let told = effective(&config, "TENANTS__DEMO__INSTANCES", "[i-1, ").unwrap_err();
    assert!(told.starts_with("tenants.demo.instances: ") && told.contains("commas"), "{told}");
    // A file has lists of its own.
    let mut config = config;
    set(&mut config, "/tenants/demo/instances", "i-1,i-2".into());
    let told = effective(&config, "ADMIN__LISTEN", "127.0.0.1:1").unwrap_err();
    assert!(told.starts_with("tenants.demo.instances: \"i-1,i-2\": expected a list"), "{told}");
}
