//! The service of the baselines. They generate it themselves: a program that links the gateway's
//! library links the AWS SDK, too.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../proto");
    let service = "participantgateway/v1/participant_service.proto";
    let compiled = protox::compile([service], ["../proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .compile_fds(compiled)?;
    Ok(())
}
