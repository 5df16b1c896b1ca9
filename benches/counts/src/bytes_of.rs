//! Bytes on the way: from a client and back to it, into a group, into the log and out of it again.

use super::{BEGIN, Row, Step, VALUE};
use bytes::{Bytes, BytesMut};
use plenary::edge::resp::decode::request;
use plenary::edge::resp::encode::{Protocol, encode};
use plenary::edge::resp::frame::{Limits, Parser};
use plenary::machine::entry::{self, Command, Entry, Origin};
use plenary::machine::reply::Reply;
use plenary::testing::RecordProbe;
use std::hint::black_box;

/// Commands that a client sends at once, and commands of a large group.
const MANY: usize = 16;

pub(super) const OPERATIONS: &[Row] = &[
    ("a SET parsed", 1, || parsed(1)),
    ("16 SET of a pipeline parsed, each", MANY, || parsed(MANY)),
    ("the reply OK", 1, || replied(Reply::OK)),
    ("a reply of 128 bytes", 1, || replied(bulk())),
    ("a reply of 10 values of 128 bytes", 1, || {
        replied(Reply::Array(vec![bulk(); 10]))
    }),
    ("a group of 1 encoded and stamped", 1, || grouped(1)),
    ("a group of 16 encoded and stamped, each", MANY, || grouped(MANY)),
    ("a group of 1 decoded", 1, || ungrouped(1)),
    ("a group of 16 decoded, each", MANY, || ungrouped(MANY)),
    ("a record of a group of 1 encoded", 1, || recorded(1)),
    ("a record of a group of 16 encoded, each", MANY, || recorded(MANY)),
    ("a record of a group of 1 decoded", 1, || reread(1)),
    ("a record of a group of 16 decoded, each", MANY, || reread(MANY)),
];

/// What connections have by default.
const LIMITS: Limits = Limits {
    arguments: 1 << 20,
    bulk_bytes: 8 << 20,
    command_bytes: 8 << 20,
};

fn bulk() -> Reply {
    Reply::Bulk(Bytes::from(vec![b'v'; VALUE]))
}

fn set(at: usize) -> Vec<Bytes> {
    let key = format!("bench:string:{at:08}");
    vec![
        Bytes::from_static(b"SET"),
        key.into(),
        Bytes::from(vec![b'v'; VALUE]),
    ]
}

fn commands(count: usize) -> Vec<Command> {
    (0..count).map(|at| Command { db: 0, argv: set(at) }).collect()
}

fn group(count: usize) -> Bytes {
    entry::stamp(
        entry::encode(Origin::default(), &commands(count)),
        Entry::FORMAT,
        BEGIN,
        1,
    )
}

fn parsed(count: usize) -> Step {
    let bytes: Vec<u8> = (0..count).flat_map(|at| request(set(at))).collect();
    let (mut parser, mut input) = (Parser::new(LIMITS), BytesMut::new());
    Box::new(move |_| {
        // As from a socket: the last commands may still be held by somebody, so this is often new memory.
        input.extend_from_slice(&bytes);
        for _ in 0..count {
            let argv = parser.next(&mut input, true).expect("RESP");
            black_box(argv.expect("a whole command"));
        }
    })
}

fn replied(reply: Reply) -> Step {
    let mut out = BytesMut::with_capacity(16 << 10);
    Box::new(move |_| {
        out.clear();
        encode(&reply, Protocol::Resp2, &mut out);
        black_box(&out);
    })
}

fn grouped(count: usize) -> Step {
    let commands = commands(count);
    Box::new(move |step| {
        let group = entry::encode(
            Origin {
                node: 1,
                start: 1,
                number: step as u64,
            },
            &commands,
        );
        black_box(entry::stamp(group, Entry::FORMAT, BEGIN, step as u64));
    })
}

fn ungrouped(count: usize) -> Step {
    let group = group(count);
    Box::new(move |_| {
        black_box(entry::decode(&group).expect("what was encoded"));
    })
}

fn recorded(count: usize) -> Step {
    let record = RecordProbe::new(group(count));
    Box::new(move |_| {
        black_box(record.encode());
    })
}

fn reread(count: usize) -> Step {
    let bytes = RecordProbe::new(group(count)).encode();
    Box::new(move |_| {
        black_box(RecordProbe::decode(bytes.clone()).expect("what was encoded"));
    })
}
