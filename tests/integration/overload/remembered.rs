//! A tenant far above its rate: what the process remembers of refusals, and for whom.

use std::time::Duration;

use super::{Client, hint, over_redis, within, word};
use crate::support::status::reason;
use crate::support::{ClosedPort, gateway, request_with_token, until};

async fn call(client: &Client, token: &str) -> crate::support::Reply {
    let call = request_with_token("contact-1", token);
    within(&mut client.clone(), "demo", call, Duration::from_secs(10)).await
}

/// The first call has no record while it waits for the upstream's budget.
#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_of_a_queued_call_gets_its_answer_where_all_others_are_refused() {
    let plan = gateway()
        .with("/tenants/demo/rate", "1/h")
        .with("/tenants/demo/burst", 2)
        .with("/upstreams/main/rate", "1/s")
        .with("/upstreams/main/burst", 1)
        .with("/upstreams/main/max_wait", "5s");
    let (gateway, _redis) = over_redis(plan).await;
    let client = gateway.client().await;
    call(&client, "first").await.unwrap();
    let queued = tokio::spawn({
        let client = client.clone();
        async move { call(&client, "queued").await }
    });
    until("the second call queues", async || gateway.quota().await.remaining == 0).await;
    for token in ["other", "another"] {
        let status = call(&client, token).await.unwrap_err();
        assert_eq!((reason(&status).as_str(), hint(&status)), ("TENANT_RATE_LIMITED", LONGEST));
    }
    let duplicate = call(&client, "queued").await.unwrap().into_inner();
    let first = queued.await.unwrap().unwrap().into_inner();
    assert_eq!(duplicate.participant_id, first.participant_id);
    assert_eq!(gateway.journal.participant_count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_given_back_its_charge_may_come_again_at_once() {
    let nobody = ClosedPort::new();
    let plan = gateway()
        .with("/tenants/demo/rate", "1/h")
        .with("/tenants/demo/burst", 1)
        .with("/upstreams/main/endpoint_url", format!("http://{}", nobody.addr()));
    let (gateway, _redis) = over_redis(plan).await;
    let client = gateway.client().await;
    let unsent = tokio::spawn({
        let client = client.clone();
        async move { call(&client, "unsent").await }
    });
    until("the call is charged", async || gateway.quota().await.remaining == 0).await;
    for token in ["other", "another"] {
        assert_eq!(word(&call(&client, token).await), "TENANT_RATE_LIMITED");
    }
    assert_eq!(word(&unsent.await.unwrap()), "UPSTREAM_UNREACHABLE");
    assert_eq!(word(&call(&client, "unsent").await), "UPSTREAM_UNREACHABLE");
}

const LONGEST: Duration = Duration::from_secs(30);
