#![no_main]

#[path = "../bodies/bodies.rs"]
#[allow(dead_code, reason = "every target has the bodies of all")]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::otel(data));
