//! The log's lines as JSON, each written into one reused buffer.
//!
//! `tracing-subscriber`'s own format passes every fragment of a line through `fmt`, and checks it
//! for UTF-8 again: for a line with sixteen fields that costs more than anything else of a replay.

use std::cell::RefCell;
use std::fmt::Debug;

use jiff::Timestamp;
use serde::Serializer as _;
use serde::ser::SerializeMap;
use serde_json::Error;
use serde_json::ser::{CompactFormatter, Compound, Serializer};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::writer::Lines;

/// Writes every event as a line of JSON.
pub(super) struct Json(pub Lines);

impl<S: Subscriber> Layer<S> for Json {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        LINE.with(|line| match line.try_borrow_mut() {
            Ok(mut line) => self.write(event, &mut line),
            // A value that logs while it is written.
            Err(_) => self.write(event, &mut Vec::new()),
        });
    }
}

impl Json {
    fn write(&self, event: &Event<'_>, line: &mut Vec<u8>) {
        line.clear();
        if put(event, line).is_ok() {
            line.push(b'\n');
            self.0.add(line);
        }
        line.shrink_to(KEPT_BYTES);
    }
}

fn put(event: &Event<'_>, line: &mut Vec<u8>) -> Result<(), Error> {
    // Events of the `log` crate carry their metadata in fields.
    let normalized = event.normalized_metadata();
    let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
    let mut serializer = Serializer::new(line);
    let mut fields = Fields { map: serializer.serialize_map(None)?, written: Ok(()) };
    fields.put("timestamp", &format_args!("{:.6}", Timestamp::now()));
    fields.put("level", metadata.level().as_str());
    event.record(&mut fields);
    fields.put("target", metadata.target());
    fields.written?;
    fields.map.end()
}

/// The fields of one line, and the first fault in writing them.
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

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a thread keeps for its next line.
const KEPT_BYTES: usize = 4096;
