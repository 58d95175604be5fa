//! The log's lines as JSON, each written into one reused buffer.
//!
//! `tracing-subscriber`'s own format passes every part of a line through `fmt`, and checks it for
//! UTF-8 again. For a line of sixteen fields, that costs more than any other step of a replay.

use std::cell::RefCell;
use std::fmt::Debug;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::Serializer as _;
use serde::ser::SerializeMap;
use serde_json::Error;
use serde_json::ser::{CompactFormatter, Compound, Serializer};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::writer::Lines;

/// Writes every event as a line of JSON. In a call's span it has the call's `request_id`.
pub(super) struct Json(pub Lines);

/// The request id, which is stored with a call's span.
struct RequestId(String);

/// Looks for the request id among a span's fields.
struct Found(Option<RequestId>);

impl Visit for Found {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == REQUEST_ID {
            self.0 = Some(RequestId(value.to_owned()));
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Json {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut found = Found(None);
        attributes.record(&mut found);
        if let (Some(found), Some(span)) = (found.0, context.span(id)) {
            span.extensions_mut().insert(found);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // A line that already names its call must not name it twice.
        let names_itself = event.metadata().fields().field(REQUEST_ID).is_some();
        let span = if names_itself { None } else { context.lookup_current() };
        let extensions = span.as_ref().map(|span| span.extensions());
        let call = extensions.as_ref().and_then(|kept| kept.get::<RequestId>());
        let call = call.map(|RequestId(id)| id.as_str());
        LINE.with(|line| match line.try_borrow_mut() {
            Ok(mut line) => self.write(event, call, &mut line),
            // The value of a field logs while it is written.
            Err(_) => self.write(event, call, &mut Vec::new()),
        });
    }
}

impl Json {
    fn write(&self, event: &Event<'_>, call: Option<&str>, line: &mut Vec<u8>) {
        line.clear();
        if put(event, call, line).is_ok() {
            line.push(b'\n');
            self.0.add(line);
        }
        line.shrink_to(KEPT_BYTES);
    }
}

fn put(event: &Event<'_>, call: Option<&str>, line: &mut Vec<u8>) -> Result<(), Error> {
    // Events of the `log` crate carry their metadata in fields.
    let normalized = event.normalized_metadata();
    let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
    let mut serializer = Serializer::new(line);
    let mut fields = Fields { map: serializer.serialize_map(None)?, written: Ok(()) };
    fields.put("timestamp", &TIME.timestamp_to_string(&Timestamp::now()));
    fields.put("level", metadata.level().as_str());
    if let Some(call) = call {
        fields.put(REQUEST_ID, call);
    }
    event.record(&mut fields);
    fields.put("target", metadata.target());
    fields.written?;
    fields.map.end()
}

/// The fields of one line, and the first error in writing them.
struct Fields<'a> {
    map: Compound<'a, &'a mut Vec<u8>, CompactFormatter>,
    written: Result<(), Error>,
}

impl Fields<'_> {
    fn put<T: serde::Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        if self.written.is_ok() && !name.starts_with("log.") {
            let name = name.strip_prefix("r#").unwrap_or(name);
            self.written = self.map.serialize_entry(name, value);
        }
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field.name(), &format_args!("{value:?}"));
    }
}

/// Times to the microsecond (RFC 3339).
const TIME: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// The field of a call's request id.
const REQUEST_ID: &str = "request_id";

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The buffer that a thread keeps for its next line, in bytes.
const KEPT_BYTES: usize = 4096;
