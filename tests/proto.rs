//! Holds `src/raft/pb.rs` to `proto/plenary.proto`, without protoc: a Rust compiler of .proto files writes it anew and compares.
//!
//! `PLENARY_PROTO=write cargo test --test proto` writes the file after the .proto changed.

use std::path::Path;

#[test]
fn the_generated_code_is_that_of_the_proto_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a folder for the generated code");
    let descriptors = protox::compile([root.join("proto/plenary.proto")], [root.join("proto")]).expect("the .proto compiles");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".")
        .compile_fds(descriptors)
        .expect("code is generated");
    let generated = std::fs::read_to_string(out.path().join("plenary.v1.rs")).expect("the file it wrote");
    let committed = root.join("src/raft/pb.rs");
    if std::env::var("PLENARY_PROTO").is_ok_and(|word| word == "write") {
        std::fs::write(&committed, &generated).expect("src/raft is writable");
    }
    let committed = std::fs::read_to_string(committed).unwrap_or_default();
    assert!(committed == generated, "src/raft/pb.rs is not what proto/plenary.proto gives: PLENARY_PROTO=write cargo test --test proto");
}
