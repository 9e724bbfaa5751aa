//! Generates the messages and services from `proto/`, without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/opsconductor.proto");
    let descriptors = protox::compile(["opsconductor.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".opsconductor.v1.Chunk.data").compile_fds(descriptors)?;
    Ok(())
}
