//! The request's body in restJson1, and the model's rules for it.

use serde::{Deserialize, Serialize};

use super::error::{ErrorCode, Failure};

/// A call that satisfies the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Call {
    /// 1..=100 characters.
    pub instance_id: String,
    /// 1..=256 characters.
    pub contact_id: String,
    /// At most 500 characters; an empty one in the request counts as absent.
    pub client_token: Option<String>,
    /// 1..=256 characters; the model does not require it.
    pub display_name: Option<String>,
    /// The role of the participant.
    pub role: Role,
    /// Whether the participant may send video.
    pub video: bool,
    /// Whether the participant may share the screen.
    pub screen_share: bool,
}

/// The roles that Connect accepts for this operation. The model's enum has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Role {
    /// A bot, on a chat contact.
    CustomBot,
    /// A customer, on a WebRTC voice contact.
    Customer,
}

/// The body from the wire: only its JSON types are checked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Body {
    pub(super) instance_id: Option<String>,
    pub(super) contact_id: Option<String>,
    pub(super) client_token: Option<String>,
    participant_details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Details {
    participant_role: Option<String>,
    display_name: Option<String>,
    participant_capabilities: Option<Capabilities>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Capabilities {
    video: Option<String>,
    screen_share: Option<String>,
}

impl Body {
    pub(super) fn display_name(&self) -> Option<&String> {
        self.participant_details.as_ref()?.display_name.as_ref()
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(bytes).map_err(|_| {
            Failure::new(
                ErrorCode::Serialization,
                "The request body is not the JSON of this operation.",
            )
        })
    }

    /// Lists every violation in one message, as AWS's own validation does.
    pub(super) fn validate(self) -> Result<Call, Failure> {
        let mut violations = Violations::default();
        let instance_id = violations.required("instanceId", self.instance_id, 100);
        let contact_id = violations.required("contactId", self.contact_id, 256);
        let client_token = violations.limited("clientToken", self.client_token, 0, 500);
        if self.participant_details.is_none() {
            violations.add("participantDetails", "Member must not be null");
        }
        let details = self.participant_details.unwrap_or_default();
        let role = match details.participant_role.as_deref() {
            Some("CUSTOM_BOT") => Role::CustomBot,
            Some("CUSTOMER") => Role::Customer,
            _ => {
                violations.add(
                    "participantDetails.participantRole",
                    "Member must be CUSTOM_BOT or CUSTOMER",
                );
                Role::CustomBot
            }
        };
        let display_name =
            violations.limited("participantDetails.displayName", details.display_name, 1, 256);
        let capabilities = details.participant_capabilities.unwrap_or_default();
        let video =
            violations.send("participantDetails.participantCapabilities.video", capabilities.video);
        let screen_share = violations.send(
            "participantDetails.participantCapabilities.screenShare",
            capabilities.screen_share,
        );
        violations.into_result()?;
        let client_token = client_token.filter(|token| !token.is_empty());
        Ok(Call { instance_id, contact_id, client_token, display_name, role, video, screen_share })
    }
}

#[derive(Default)]
struct Violations(Vec<String>);

impl Violations {
    fn add(&mut self, member: &str, constraint: &str) {
        self.0
            .push(format!("Value at '{member}' failed to satisfy constraint: {constraint}"));
    }

    fn required(&mut self, member: &str, value: Option<String>, max: usize) -> String {
        if value.is_none() {
            self.add(member, "Member must not be null");
        }
        self.limited(member, value, 1, max).unwrap_or_default()
    }

    // The model's lengths count Unicode characters.
    fn limited(
        &mut self,
        member: &str,
        value: Option<String>,
        min: usize,
        max: usize,
    ) -> Option<String> {
        let length = value.as_ref()?.chars().count();
        if length < min {
            self.add(member, &format!("Member must have length greater than or equal to {min}"));
        } else if length > max {
            self.add(member, &format!("Member must have length less than or equal to {max}"));
        }
        value
    }

    fn send(&mut self, member: &str, value: Option<String>) -> bool {
        if value.as_ref().is_some_and(|value| value != "SEND") {
            self.add(member, "Member must satisfy enum value set: [SEND]");
        }
        value.is_some()
    }

    fn into_result(self) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let plural = if self.0.len() == 1 { "" } else { "s" };
        let message =
            format!("{} validation error{plural} detected: {}", self.0.len(), self.0.join("; "));
        Err(Failure::new(ErrorCode::InvalidRequest, message))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn validated(body: &Value) -> Result<Call, Failure> {
        Body::parse(body.to_string().as_bytes()).and_then(Body::validate)
    }

    fn valid() -> Value {
        json!({
            "InstanceId": "i", "ContactId": "c", "ClientToken": "t",
            "ParticipantDetails": {
                "ParticipantRole": "CUSTOMER", "DisplayName": "d",
                "ParticipantCapabilities": { "Video": "SEND" },
            },
        })
    }

    #[test]
    fn a_call_is_read_in_full() {
        let call = Call {
            instance_id: "i".into(),
            contact_id: "c".into(),
            client_token: Some("t".into()),
            display_name: Some("d".into()),
            role: Role::Customer,
            video: true,
            screen_share: false,
        };
        assert_eq!(validated(&valid()), Ok(call));
    }

    #[test]
    fn lengths_count_characters_and_their_limits_are_inclusive() {
        for (pointer, max) in [
            ("/InstanceId", 100),
            ("/ContactId", 256),
            ("/ClientToken", 500),
            ("/ParticipantDetails/DisplayName", 256),
        ] {
            let with = |length| {
                let mut body = valid();
                *body.pointer_mut(pointer).expect("a member") = "ü".repeat(length).into();
                validated(&body).map_err(|failure| failure.code)
            };
            assert!(with(max).is_ok(), "{pointer}");
            assert_eq!(with(max + 1), Err(ErrorCode::InvalidRequest), "{pointer}");
            assert_eq!(with(0).is_ok(), pointer == "/ClientToken", "{pointer}");
        }
    }

    #[test]
    fn roles_that_connect_refuses_are_refused() {
        for role in
            [json!("AGENT"), json!("SYSTEM"), json!("SUPERVISOR"), json!("customer"), json!(null)]
        {
            let mut body = valid();
            body["ParticipantDetails"]["ParticipantRole"] = role;
            assert_eq!(
                validated(&body).map_err(|failure| failure.code),
                Err(ErrorCode::InvalidRequest)
            );
        }
    }

    #[test]
    fn every_violation_is_named() {
        let message = validated(&json!({ "ContactId": "" })).expect_err("nothing is right").message;
        assert!(message.starts_with("4 validation errors detected: "), "{message}");
    }

    #[test]
    fn an_empty_client_token_is_none() {
        let mut body = valid();
        body["ClientToken"] = "".into();
        assert_eq!(validated(&body).map(|call| call.client_token), Ok(None));
    }

    #[test]
    fn what_is_no_object_of_strings_is_no_request() {
        for body in ["", "[", "[]", "null", r#"{"ContactId":1}"#] {
            assert_eq!(
                Body::parse(body.as_bytes()).map_err(|failure| failure.code).err(),
                Some(ErrorCode::Serialization)
            );
        }
    }
}
