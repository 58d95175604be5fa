//! Compiles the protos with protox, so that no protoc is needed, and keeps the descriptor set for
//! server reflection.

use std::path::PathBuf;
use std::{env, error, fs};

/// What the program serves.
const SERVICES: [&str; 2] = [
    "participantgateway/v1/participant_service.proto",
    "participantgateway/v1/quota_service.proto",
];

/// What the details of an error are made of: tools look them up by reflection.
const DETAILS: [&str; 2] = ["google/rpc/status.proto", "google/rpc/error_details.proto"];

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo:rerun-if-changed=proto");

    // Encoded by the compiler itself: a detour over prost's types would lose the `field_behavior`
    // options. The source info holds the comments, which `grpcurl describe` prints.
    let mut reflected = protox::Compiler::new(["proto"])?;
    reflected.include_imports(true).include_source_info(true);
    reflected.open_files(SERVICES.iter().chain(&DETAILS))?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), reflected.encode_file_descriptor_set())?;

    let mut compiled = protox::Compiler::new(["proto"])?;
    compiled.include_imports(true).include_source_info(true).open_files(SERVICES)?;
    tonic_prost_build::configure()
        // The program is no client; the tests bring a channel of their own.
        .build_transport(false)
        .codec_path("crate::proto::Codec")
        // Written by hand in src/proto.rs, so that what is secret or personal cannot be printed.
        .skip_debug([
            ".participantgateway.v1.CreateParticipantRequest",
            ".participantgateway.v1.ParticipantDetails",
            ".participantgateway.v1.ParticipantCredentials",
        ])
        .compile_fds(compiled.file_descriptor_set())?;
    Ok(())
}
