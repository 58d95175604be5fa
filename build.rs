//! Compiles the protos with protox, so that no protoc is needed, and keeps the descriptor set for
//! server reflection.

use std::path::PathBuf;
use std::{env, error, fs};

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files([
        "participantgateway/v1/participant_service.proto",
        "participantgateway/v1/quota_service.proto",
    ])?;

    // Encoded by the compiler itself: a detour over prost's types would lose the `field_behavior`
    // options.
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    tonic_prost_build::configure()
        // The program is no client; the tests bring a channel of their own.
        .build_transport(false)
        // Written by hand in src/proto.rs, so that what is secret or personal cannot be printed.
        .skip_debug([
            ".participantgateway.v1.CreateParticipantRequest",
            ".participantgateway.v1.ParticipantDetails",
            ".participantgateway.v1.ParticipantCredentials",
        ])
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
