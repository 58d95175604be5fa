//! Compiles the protos with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = "../../proto";
    println!("cargo:rerun-if-changed={protos}");
    let compiled = protox::compile(
        [
            "participantgateway/v1/participant_service.proto",
            "participantgateway/v1/quota_service.proto",
        ],
        [protos],
    )?;
    tonic_prost_build::configure().build_server(false).compile_fds(compiled)?;
    Ok(())
}
