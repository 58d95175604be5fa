//! Turns a proto message into domain types, and reports every violation of the contract at once.

use crate::domain::{
    Capabilities, ClientToken, ContactId, CreateParticipant, DisplayName, InstanceId, OutOfBounds,
    Role,
};
use crate::error::{Error, Violation};
use crate::proto;

/// Reads a request. `requires_client_token`: a request without one is a violation.
///
/// # Errors
/// [`Error::InvalidRequest`] with every violation.
pub fn create_participant(
    request: proto::CreateParticipantRequest,
    requires_client_token: bool,
) -> Result<CreateParticipant, Error> {
    let mut violations = Violations::default();
    let instance_id = violations.instance_id(request.instance_id);
    let contact_id = violations.text("contact_id", ContactId::new(request.contact_id));
    let client_token = violations.client_token(request.client_token, requires_client_token);
    let details = match request.participant_details {
        Some(details) => violations.details(details),
        None => {
            violations.add("participant_details", "is required");
            None
        }
    };
    match (instance_id, contact_id, client_token, details) {
        (Some(instance_id), Some(contact_id), Some(client_token), Some(details))
            if violations.0.is_empty() =>
        {
            let Details { role, display_name, capabilities } = details;
            Ok(CreateParticipant {
                instance_id,
                contact_id,
                client_token,
                role,
                display_name,
                capabilities,
            })
        }
        _ => Err(Error::InvalidRequest(violations.0)),
    }
}

/// Reads the one field of a quota question.
///
/// # Errors
/// [`Error::InvalidRequest`].
pub(crate) fn quota(request: proto::GetQuotaRequest) -> Result<InstanceId, Error> {
    let mut violations = Violations::default();
    let instance_id = violations.instance_id(request.instance_id);
    instance_id.ok_or(Error::InvalidRequest(violations.0))
}

struct Details {
    role: Role,
    display_name: DisplayName,
    capabilities: Option<Capabilities>,
}

#[derive(Default)]
struct Violations(Vec<Violation>);

impl Violations {
    fn add(&mut self, field: &'static str, description: &'static str) {
        self.0.push(Violation::new(field, description));
    }

    fn text<T>(&mut self, field: &'static str, text: Result<T, OutOfBounds>) -> Option<T> {
        text.map_err(|bounds| self.0.push(Violation::length(field, bounds))).ok()
    }

    fn instance_id(&mut self, text: String) -> Option<InstanceId> {
        let id = self.text("instance_id", InstanceId::new(text))?;
        if id.is_arn() {
            self.add("instance_id", "is an ARN: expected the id, the part after `instance/`");
            return None;
        }
        Some(id)
    }

    /// The client token. The outer `None` is a violation.
    fn client_token(&mut self, token: String, is_required: bool) -> Option<Option<ClientToken>> {
        if token.is_empty() {
            if is_required {
                self.add("client_token", "is required: the tenant's calls must be repeatable");
            }
            return (!is_required).then_some(None);
        }
        let token = ClientToken::new(token).map(Some);
        token
            .inspect_err(|_| self.add("client_token", "expected 500 characters at most"))
            .ok()
    }

    fn details(&mut self, details: proto::ParticipantDetails) -> Option<Details> {
        let role = self.role(details.participant_role);
        let display_name =
            self.text("participant_details.display_name", DisplayName::new(details.display_name));
        let capabilities = details
            .participant_capabilities
            .map(|capabilities| self.capabilities(capabilities))
            // An empty message means the same as none, in the fingerprint and for Connect.
            .filter(|capabilities| *capabilities != Capabilities::default());
        Some(Details { role: role?, display_name: display_name?, capabilities })
    }

    fn role(&mut self, role: i32) -> Option<Role> {
        let description = match proto::ParticipantRole::try_from(role) {
            Ok(proto::ParticipantRole::CustomBot) => return Some(Role::CustomBot),
            Ok(proto::ParticipantRole::Customer) => return Some(Role::Customer),
            Ok(proto::ParticipantRole::Unspecified) => {
                "is required: expected PARTICIPANT_ROLE_CUSTOM_BOT or PARTICIPANT_ROLE_CUSTOMER"
            }
            Ok(
                proto::ParticipantRole::Agent
                | proto::ParticipantRole::System
                | proto::ParticipantRole::Supervisor,
            ) => {
                "is not a role that Connect creates: expected PARTICIPANT_ROLE_CUSTOM_BOT or PARTICIPANT_ROLE_CUSTOMER"
            }
            Err(_) => {
                "is unknown: expected PARTICIPANT_ROLE_CUSTOM_BOT or PARTICIPANT_ROLE_CUSTOMER"
            }
        };
        self.add("participant_details.participant_role", description);
        None
    }

    fn capabilities(&mut self, capabilities: proto::ParticipantCapabilities) -> Capabilities {
        let video = proto::VideoCapability::try_from(capabilities.video);
        if video.is_err() {
            let field = "participant_details.participant_capabilities.video";
            self.add(field, "is unknown: expected VIDEO_CAPABILITY_SEND or nothing");
        }
        let screen_share = proto::ScreenShareCapability::try_from(capabilities.screen_share);
        if screen_share.is_err() {
            let field = "participant_details.participant_capabilities.screen_share";
            self.add(field, "is unknown: expected SCREEN_SHARE_CAPABILITY_SEND or nothing");
        }
        Capabilities {
            video: video == Ok(proto::VideoCapability::Send),
            screen_share: screen_share == Ok(proto::ScreenShareCapability::Send),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn valid() -> proto::CreateParticipantRequest {
        proto::CreateParticipantRequest {
            instance_id: "instance".to_owned(),
            contact_id: "contact".to_owned(),
            client_token: String::new(),
            participant_details: Some(proto::ParticipantDetails {
                participant_role: proto::ParticipantRole::CustomBot.into(),
                display_name: "Bot".to_owned(),
                participant_capabilities: None,
            }),
        }
    }

    fn violated(request: proto::CreateParticipantRequest) -> Vec<&'static str> {
        match create_participant(request, false) {
            Err(Error::InvalidRequest(violations)) => {
                violations.into_iter().map(|violation| violation.field).collect()
            }
            Err(other) => panic!("{other}"),
            Ok(_) => Vec::new(),
        }
    }

    #[test]
    fn an_empty_request_violates_every_required_field_at_once() {
        assert_eq!(
            violated(Default::default()),
            ["instance_id", "contact_id", "participant_details"]
        );
        let empty_details = proto::CreateParticipantRequest {
            participant_details: Some(Default::default()),
            ..valid()
        };
        assert_eq!(
            violated(empty_details),
            ["participant_details.participant_role", "participant_details.display_name"]
        );
    }

    #[test]
    fn an_empty_client_token_is_absent_and_one_of_spaces_is_kept() {
        assert_eq!(create_participant(valid(), false).unwrap().client_token, None);
        let spaces = proto::CreateParticipantRequest { client_token: "  ".to_owned(), ..valid() };
        let token = create_participant(spaces, false).unwrap().client_token.unwrap();
        assert_eq!(token.as_str(), "  ");
    }

    #[test]
    fn roles_that_connect_does_not_create_are_refused() {
        for role in [0, 1, 3, 5, 6, -1] {
            let mut request = valid();
            request.participant_details.as_mut().unwrap().participant_role = role;
            assert_eq!(violated(request), ["participant_details.participant_role"], "{role}");
        }
    }

    fn text(max: usize) -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            "\\PC{1,8}",
            proptest::collection::vec(any::<char>(), max - 1..max + 2)
                .prop_map(|chars| chars.into_iter().collect())
        ]
    }

    fn details() -> impl Strategy<Value = proto::ParticipantDetails> {
        let capabilities = (-1..3, -1..3).prop_map(|(video, screen_share)| {
            proto::ParticipantCapabilities { video, screen_share }
        });
        (-1..7, text(256), proptest::option::of(capabilities)).prop_map(
            |(role, display_name, capabilities)| proto::ParticipantDetails {
                participant_role: role,
                display_name,
                participant_capabilities: capabilities,
            },
        )
    }

    fn request() -> impl Strategy<Value = proto::CreateParticipantRequest> {
        (text(100), text(256), text(500), proptest::option::of(details())).prop_map(
            |(instance_id, contact_id, client_token, participant_details)| {
                proto::CreateParticipantRequest {
                    instance_id,
                    contact_id,
                    client_token,
                    participant_details,
                }
            },
        )
    }

    /// The rules of the contract, written a second time and without the types that enforce them.
    fn within_the_rules(request: &proto::CreateParticipantRequest) -> bool {
        let length = |text: &str, min, max| (min..=max).contains(&text.chars().count());
        let details = request.participant_details.as_ref().is_some_and(|details| {
            let flags = details.participant_capabilities.as_ref().is_none_or(|capabilities| {
                [0, 1].contains(&capabilities.video) && [0, 1].contains(&capabilities.screen_share)
            });
            [2, 4].contains(&details.participant_role)
                && length(&details.display_name, 1, 256)
                && flags
        });
        length(&request.instance_id, 1, 100)
            && length(&request.contact_id, 1, 256)
            && length(&request.client_token, 0, 500)
            && details
    }

    proptest! {
        #[test]
        fn exactly_the_requests_within_the_rules_are_accepted(request in request()) {
            let within = within_the_rules(&request);
            let fields = violated(request);
            prop_assert_eq!(within, fields.is_empty(), "{:?}", fields);
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(request) = proto::CreateParticipantRequest::decode(bytes.as_slice()) {
                let _ = create_participant(request, false);
            }
        }

        #[test]
        fn no_damaged_request_makes_decoding_panic(request in request(), at in any::<usize>(), byte in any::<u8>()) {
            let mut bytes = request.encode_to_vec();
            if !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            if let Ok(request) = proto::CreateParticipantRequest::decode(bytes.as_slice()) {
                let _ = create_participant(request, false);
            }
        }
    }
}
