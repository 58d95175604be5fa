//! The bodies of the fuzz targets, over their corpus and what is near it, on the stable toolchain.

#[path = "../../fuzz/bodies/bodies.rs"]
mod bodies;

use std::fs;
use std::path::Path;

/// The files of a target's corpus, and each with `damages` changes of a byte or an end; the same
/// ones every time. `cover-01` and those like it cover the most of what a run of the fuzzer found.
fn run(target: &str, damages: usize, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(seeds.len() >= 5, "hardly a corpus: {seeds:?}");
    for seed in seeds {
        println!("{}", seed.display());
        // There are many of those that a run found.
        let is_found = seed.file_name().unwrap().to_string_lossy().starts_with("cover-");
        let damages = if is_found { damages / 20 } else { damages };
        let bytes = fs::read(&seed).unwrap();
        body(&bytes);
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..damages {
            let mut damaged = bytes.clone();
            if !damaged.is_empty() {
                let at = random.usize(..damaged.len());
                if random.bool() { damaged[at] = random.u8(..) } else { damaged.truncate(at) }
            }
            body(&damaged);
        }
    }
}

#[test]
fn requests() {
    run("request", 500, bodies::request);
}

#[test]
fn replies_of_connect() {
    run("connect_reply", 10, bodies::connect_reply);
}

#[test]
fn stored_records() {
    run("stored_record", 500, bodies::stored_record);
}

#[test]
fn metadata() {
    run("metadata", 200, bodies::metadata);
}

#[test]
fn configs() {
    run("config", 10, bodies::config);
}

#[test]
fn headers_of_envoys() {
    run("xfcc", 2_000, bodies::xfcc);
}

#[test]
fn discovery_documents() {
    run("discovery", 2_000, bodies::discovery);
}

#[test]
fn lists_of_hosts_without_a_proxy() {
    run("no_proxy", 2_000, bodies::no_proxy);
}

#[test]
fn variables_of_opentelemetry() {
    run("otel", 200, bodies::otel);
}

#[test]
fn frames_before_the_preface_ends() {
    run("preface", 20, bodies::preface);
}
