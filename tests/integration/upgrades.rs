//! Two releases on one Redis, while what stands there changes its layout: docs/design/admission.md,
//! "Layouts".
//!
//! The next layout is one that the tests make up. The release that writes it is a gateway in this
//! process; or the program that `NEXT_LAYOUT_PROGRAM` names, as in `make test-upgrade`.

use std::collections::HashSet;
use std::ops::Deref;
use std::process::Command;

use futures_util::future::join_all;
use participant_gateway::admission::redis::Layout;
use participant_gateway::proto::CreateParticipantResponse;

use crate::support::gateway::Front;
use crate::support::redis::RedisServer;
use crate::support::status::reason;
use crate::support::{Plan, gateway, request, request_with_token};

type Gateway = Box<dyn Deref<Target = Front>>;

/// A gateway of a release that knows these layouts.
async fn of_release(layout: Layout, plan: Plan) -> Gateway {
    match std::env::var_os("NEXT_LAYOUT_PROGRAM") {
        Some(program) if layout == Layout::WritesNext => {
            Box::new(plan.serve_by(Command::new(program), &[]).await)
        }
        _ => Box::new(plan.of_layout(layout).start().await),
    }
}

/// Two releases over one Redis and one Connect.
async fn both(server: &RedisServer, layouts: [Layout; 2], plan: impl Fn() -> Plan) -> [Gateway; 2] {
    let prefix = uuid::Uuid::new_v4().to_string();
    let on_redis = || plan().on_redis(&server.url(), &prefix).patient();
    let first = of_release(layouts[0], on_redis()).await;
    let second = of_release(layouts[1], on_redis().beside(&first)).await;
    [first, second]
}

/// Duplicates at once at both, retries at both, other content at both: no call fails for it, and
/// each client_token has one participant.
async fn calls_flow_over(layouts: [Layout; 2]) {
    let server = RedisServer::shared().await;
    let gateways = both(&server, layouts, gateway).await;
    let contacts = ["contact-1", "sim-slow-40", "sim-flaky-1", "sim-reset-first-1"];
    let callers = (0..48).map(|number| {
        let (gateways, contact) = (&gateways, contacts[number % contacts.len()]);
        let token = format!("token-{number}");
        // Each release is the first one as often as the other.
        let (one, other) = (number / 4 % 2, 1 - number / 4 % 2);
        async move {
            let call = async |at: usize| {
                let reply = gateways[at].call(request_with_token(contact, &token)).await;
                reply
                    .unwrap_or_else(|status| panic!("{contact} of {token}: {status}"))
                    .into_inner()
            };
            let (first, duplicate) = tokio::join!(call(one), call(other));
            let answers = [first, duplicate, call(other).await, call(one).await, call(other).await];
            for at in [one, other] {
                let reused = gateways[at].call(request_with_token("contact-2", &token)).await;
                assert_eq!(reason(&reused.unwrap_err()), "CLIENT_TOKEN_REUSED");
            }
            one_participant(&answers)
        }
    });
    let made: HashSet<_> = join_all(callers).await.into_iter().collect();
    assert_eq!(made.len(), 48);
    assert_eq!(gateways[0].journal.participant_count(), 48, "a second participant was made");
}

fn one_participant(answers: &[CreateParticipantResponse]) -> String {
    let ids: HashSet<_> = answers.iter().map(|answer| &answer.participant_id).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    answers[0].participant_id.clone()
}

#[tokio::test]
async fn two_layouts_side_by_side_fail_no_call_and_make_no_second_participant() {
    calls_flow_over([Layout::ReadsNext, Layout::WritesNext]).await;
}

#[tokio::test]
async fn a_layout_that_the_older_release_cannot_read_fails_no_call_and_makes_no_second_participant()
{
    calls_flow_over([Layout::Current, Layout::WritesNext]).await;
}

#[tokio::test]
async fn two_layouts_side_by_side_share_every_level() {
    let server = RedisServer::shared().await;
    let plan = || gateway().with("/tenants/demo/rate", "1/h").with("/tenants/demo/burst", 20);
    let gateways = both(&server, [Layout::ReadsNext, Layout::WritesNext], plan).await;
    for number in 0..20 {
        gateways[number % 2].call(request("contact-1")).await.unwrap();
    }
    for gateway in &gateways {
        let refused = gateway.call(request("contact-1")).await.unwrap_err();
        assert_eq!(reason(&refused), "TENANT_RATE_LIMITED");
    }
}

#[tokio::test]
async fn what_the_next_layout_has_kept_is_replayed_after_a_rollback_and_after_the_next_upgrade() {
    let server = RedisServer::shared().await;
    let [old, new] = both(&server, [Layout::ReadsNext, Layout::WritesNext], gateway).await;
    let call = async |at: &Gateway, token: &str| {
        at.call(request_with_token("contact-1", token)).await.unwrap().into_inner()
    };
    let by_new = call(&new, "token-1").await;
    let by_old = call(&old, "token-2").await;
    let (rolled_back, upgraded) = (call(&old, "token-1").await, call(&new, "token-2").await);
    assert!(rolled_back.replayed && upgraded.replayed);
    assert_eq!(rolled_back.participant_id, by_new.participant_id);
    assert_eq!(upgraded.participant_id, by_old.participant_id);
    assert_eq!(old.journal.attempt_count(), 2);
}
