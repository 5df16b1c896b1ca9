//! Bytes of a client: no bytes panic the parser, and those that come in pieces are read as those that come at once.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use plenary::edge::resp::frame::{Limits, Parser};

const LIMITS: Limits = Limits {
    arguments: 64,
    bulk_bytes: 64 << 10,
    command_bytes: 4 * 64 << 10,
};

fn parse(pieces: &[&[u8]], known: bool) -> String {
    let (mut parser, mut input, mut read) = (Parser::new(LIMITS), BytesMut::new(), String::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match parser.next(&mut input, known) {
                Ok(Some(argv)) => read.push_str(&format!("{argv:?}\n")),
                Ok(None) => break,
                Err(error) => return read + &error.to_string(),
            }
        }
    }
    read
}

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else {
        return;
    };
    let (known, at) = (first & 1 == 0, usize::from(first >> 1).min(bytes.len()));
    let (left, right) = bytes.split_at(at);
    assert_eq!(parse(&[bytes], known), parse(&[left, right], known));
});
