//! Holds `src/raft/pb.rs` to `proto/plenary.proto`, without protoc: a Rust compiler of .proto files writes it anew and compares.
//!
//! `PLENARY_PROTO=write cargo test --test proto` writes the file after the .proto changed.
//!
//! What was ever sent stays as it is: `golden/wire.txt` has each call, and each field with its number and type. New ones may come, beside older programs that do
//! not know them; none may change or go. `PLENARY_GOLDEN=record cargo test --test proto` adds the new ones.

use protox::prost_reflect::{DescriptorPool, EnumValueDescriptor, FieldDescriptor, Kind, MethodDescriptor};
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn the_generated_code_is_that_of_the_proto_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a folder for the generated code");
    let descriptors = protox::compile([root.join("proto/plenary.proto")], [root.join("proto")])
        .expect("the .proto compiles");
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
    assert!(
        committed == generated,
        "src/raft/pb.rs is not what proto/plenary.proto gives: PLENARY_PROTO=write cargo test --test proto"
    );
}

/// Each call, each field and each value of what compiles, a line each.
fn promises() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiled = protox::compile([root.join("proto/plenary.proto")], [root.join("proto")]);
    let compiled = compiled.expect("the .proto compiles");
    let files = DescriptorPool::from_file_descriptor_set(compiled).expect("it is whole");
    let calls = files.services().flat_map(|service| {
        let call = |call: MethodDescriptor| {
            let stream = |yes: bool| if yes { "stream " } else { "" };
            format!(
                "{}/{} {}{} -> {}{}",
                service.full_name(),
                call.name(),
                stream(call.is_client_streaming()),
                call.input().full_name(),
                stream(call.is_server_streaming()),
                call.output().full_name()
            )
        };
        service.methods().map(call).collect::<Vec<_>>()
    });
    let fields = files.all_messages().flat_map(|message| {
        let field = |field: FieldDescriptor| {
            let kind = match field.kind() {
                Kind::Message(message) => message.full_name().to_owned(),
                Kind::Enum(values) => values.full_name().to_owned(),
                plain => format!("{plain:?}").to_lowercase(),
            };
            let repeated = if field.is_list() { "repeated " } else { "" };
            format!(
                "{} {} = {} {repeated}{kind}",
                field.parent_message().full_name(),
                field.name(),
                field.number()
            )
        };
        message.fields().map(field).collect::<Vec<_>>()
    });
    let values = files.all_enums().flat_map(|values| {
        let value = |value: EnumValueDescriptor| format!("{} = {}", value.full_name(), value.number());
        values.values().map(value).collect::<Vec<_>>()
    });
    calls.chain(fields).chain(values).collect()
}

#[test]
fn what_was_ever_sent_stays_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wire.txt");
    let promised: BTreeSet<String> = std::fs::read_to_string(&path)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    let there = promises();
    let gone: Vec<&String> = promised.difference(&there).collect();
    assert!(
        gone.is_empty(),
        "an older program sends or awaits this: {gone:#?}"
    );
    if std::env::var("PLENARY_GOLDEN").is_ok_and(|word| word == "record") {
        let text: String = there.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, text).expect("the folder is ours");
    } else {
        let new: Vec<&String> = there.difference(&promised).collect();
        assert!(
            new.is_empty(),
            "not promised yet: PLENARY_GOLDEN=record cargo test --test proto: {new:#?}"
        );
    }
}
