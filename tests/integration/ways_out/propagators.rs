//! `OTEL_PROPAGATORS`: how a caller's trace is read, and handed on to Connect.

use participant_gateway::proto::participant_service_client::ParticipantServiceClient;
use participant_gateway::simulator::Journal;

use super::{row, serve, simulator};
use crate::support::{of, request_with_token};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// One call with these headers: the trace id in the log, and a header of what Connect got.
async fn handed_on(
    propagators: &str,
    sent: &[(&'static str, String)],
    header: &str,
) -> (String, Option<String>) {
    let (config, journal): (_, Journal) = simulator().await;
    let mut gateway = serve(config, &[("OTEL_PROPAGATORS", propagators)]).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", gateway.addr));
    let channel = endpoint.unwrap().connect().await.unwrap();
    let mut call = of("demo", request_with_token("contact-1", "token-1"));
    for (name, value) in sent {
        call.metadata_mut().insert(*name, value.parse().unwrap());
    }
    ParticipantServiceClient::new(channel).create_participant(call).await.unwrap();
    let line = gateway.running.line_with("\"message\":\"call\"").await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let got = journal.attempts()[0].header(header).map(str::to_owned);
    (line["trace_id"].as_str().unwrap().to_owned(), got)
}

#[tokio::test]
async fn each_form_of_a_context_is_read_and_handed_on() {
    let xray = format!("Root=1-{}-{};Parent=00f067aa0ba902b7;Sampled=1", &TRACE[..8], &TRACE[8..]);
    for (propagators, sent, header) in [
        (
            "tracecontext",
            vec![("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))],
            "traceparent",
        ),
        ("b3", vec![("b3", format!("{TRACE}-00f067aa0ba902b7-1"))], "b3"),
        (
            "b3multi",
            vec![
                ("x-b3-traceid", TRACE.to_owned()),
                ("x-b3-spanid", "00f067aa0ba902b7".to_owned()),
                ("x-b3-sampled", "1".to_owned()),
            ],
            "x-b3-traceid",
        ),
        ("xray", vec![("x-amzn-trace-id", xray)], "x-amzn-trace-id"),
    ] {
        let (trace_id, got) = handed_on(propagators, &sent, header).await;
        assert_eq!(trace_id, TRACE, "{propagators}");
        let got = got.unwrap_or_else(|| panic!("{propagators}: no {header}"));
        assert!(got.replace('-', "").contains(TRACE), "{propagators}: {got}");
        row(&format!("OTEL_PROPAGATORS={propagators}"), format!("{header}: {got}"));
    }
}

#[tokio::test]
async fn none_reads_and_hands_on_nothing_and_baggage_travels_where_it_is_asked_for() {
    let traceparent = ("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let baggage = ("baggage", "team=chat".to_owned());
    let sent = [traceparent, baggage];
    let (trace_id, got) = handed_on("none", &sent, "traceparent").await;
    assert!(trace_id != TRACE && got.is_none(), "{trace_id} {got:?}");
    let (_, got) = handed_on("tracecontext,baggage", &sent, "baggage").await;
    assert_eq!(got.as_deref(), Some("team=chat"));
    let (_, got) = handed_on("tracecontext", &sent, "baggage").await;
    assert_eq!(got, None);
    row("OTEL_PROPAGATORS=none, or with baggage", "nothing, or both");
}
