//! A call's line in the log, its count, and the end of its span.

use std::sync::Arc;

use tokio::time::Instant;

use crate::call::{Ended, Notes};
use crate::net::Peer;
use crate::telemetry::{Metrics, Span};

/// The line of one call. It is written even if the caller leaves before the answer.
pub struct Line<'a> {
    notes: &'a Arc<Notes>,
    metrics: &'a Metrics,
    method: &'static str,
    span: &'a Span,
    peer: &'a Peer,
    started: Instant,
    is_written: bool,
}

impl<'a> Line<'a> {
    /// Begins a call's line. `method`: its name in metrics and spans.
    #[must_use]
    pub fn begin(
        method: &'static str,
        notes: &'a Arc<Notes>,
        span: &'a Span,
        peer: &'a Peer,
        metrics: &'a Metrics,
    ) -> Self {
        Self { notes, metrics, method, span, peer, started: Instant::now(), is_written: false }
    }

    /// Writes the line of an answered call, by its notes.
    pub fn write(mut self) {
        let ended = self.notes.take_ended();
        self.write_once(ended.as_ref());
    }

    fn write_once(&mut self, ended: Option<&Ended>) {
        self.is_written = true;
        let Self { notes, metrics, method, span, .. } = self;
        let (code, is_fault) = ended.map_or(("OK", false), |ended| (ended.code, ended.is_fault));
        let took = self.started.elapsed();
        span.answered(code, is_fault);
        metrics.count_call(method, code, is_fault, notes.tenant(), took, span.sampled_trace());
        if let Some(ended) = ended {
            metrics.note_failed(notes, ended);
        }
        let disposition = notes.disposition();
        let refusal = notes.refusal();
        let (trace_id, span_id) = span.ids().unzip();
        tracing::info!(
            request_id = notes.request_id(),
            peer = &*self.peer.written,
            tenant = notes.tenant().map(|name| name.as_str()),
            upstream = notes.upstream().map(|name| name.as_str()),
            decision = disposition.map(|(disposition, _)| disposition.as_str()),
            enforcement = disposition.and_then(|(_, shadow)| shadow.then_some("shadow")),
            code,
            reason = ended.map_or("", |ended| ended.reason),
            refusal = refusal.as_ref().map(|(kind, _)| *kind),
            subject = refusal.as_ref().and_then(|(_, subject)| subject.as_deref()),
            duration = took.as_secs_f64(),
            attempts = notes.course().attempts(),
            previous_attempts = notes.previous_attempts(),
            trace_id = trace_id.map(tracing::field::display),
            span_id = span_id.map(tracing::field::display),
            error = ended.map(|ended| ended.detail.as_str()),
            "call"
        );
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.is_written {
            let (detail, reason) = (String::new(), "");
            let sentence = "The caller left before the answer: look at its deadline.";
            let ended = Ended { code: "CANCELLED", reason, is_fault: false, sentence, detail };
            self.write_once(Some(&ended));
        }
    }
}
