//! Laws of the Redis protocol's bytes, with the crate `redis-protocol` as judge: what comes in pieces is read as what comes at once,
//! what we write is read by others, and no bytes make us panic or hold more than they are.
#![cfg(feature = "resp")]
// Tests are not documented for others, and may panic.
#![allow(missing_docs, clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use plenary::edge::resp::decode::{self, DecodeError};
use plenary::edge::resp::encode::{Protocol, encode};
use plenary::edge::resp::frame::{LINE_MAX_BYTES, Limits, Parser, ProtocolError, split_quoted};
use plenary::machine::reply::{CommandError, Reply};
use proptest::collection::vec;
use proptest::prelude::*;
use redis_protocol::{resp2, resp3};

const LIMITS: Limits = Limits::new(64, 64 << 10);

/// Every command in these pieces, and the error after them.
fn parse<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    known: bool,
) -> (Vec<Vec<Bytes>>, Option<ProtocolError>) {
    let (mut parser, mut input, mut commands) = (Parser::new(LIMITS), BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match parser.next(&mut input, known) {
                Ok(Some(argv)) => commands.push(argv),
                Ok(None) => break,
                Err(error) => return (commands, Some(error)),
            }
        }
    }
    (commands, None)
}

fn argument() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..12),
        "[a-z*$\r\n ]{0,8}".prop_map(String::into_bytes),
        vec(any::<u8>(), 200..300)
    ]
}

fn commands() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    vec(vec(argument(), 1..6), 1..5)
}

fn words(commands: &[Vec<Vec<u8>>]) -> Vec<u8> {
    commands.iter().flat_map(decode::request).collect()
}

/// Bytes that are nearly commands: the parser gets further into them than into noise.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        commands().prop_map(|commands| words(&commands)),
        vec(any::<u8>(), 0..16),
        "[*$]-?[0-9]{0,20}\r\n".prop_map(String::into_bytes),
        "[a-z\"'\\\\x0-9 ]{0,16}\r?\n".prop_map(String::into_bytes),
    ];
    vec(piece, 1..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn commands_are_read_as_the_judge_reads_them(commands in commands()) {
        let bytes = words(&commands);
        let (ours, error) = parse([&bytes[..]], true);
        prop_assert_eq!(error, None);
        let (mut rest, mut theirs) = (Bytes::from(bytes), Vec::new());
        while let Some((resp2::types::BytesFrame::Array(frames), taken)) = resp2::decode::decode_bytes(&rest).unwrap() {
            let argument = |frame: &resp2::types::BytesFrame| match frame {
                resp2::types::BytesFrame::BulkString(bytes) => bytes.clone(),
                other => panic!("a bulk was sent, {other:?} was read"),
            };
            theirs.push(frames.iter().map(argument).collect::<Vec<_>>());
            rest = rest.slice(taken..);
        }
        prop_assert_eq!(&ours, &theirs);
        prop_assert_eq!(ours.len(), commands.len());
    }

    #[test]
    fn a_split_anywhere_changes_nothing(bytes in nearly(), known in any::<bool>(), at in any::<prop::sample::Index>()) {
        let whole = parse([&bytes[..]], known);
        let (left, right) = bytes.split_at(at.index(bytes.len() + 1));
        prop_assert_eq!(&whole, &parse([left, right], known));
        prop_assert_eq!(&whole, &parse(bytes.chunks(1), known));
    }

    #[test]
    fn no_bytes_panic_either_parser(bytes in vec(any::<u8>(), 0..200)) {
        parse([&bytes[..]], false);
        let mut input = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = decode::decode(&mut input) {}
    }

    #[test]
    fn replies_are_read_by_the_judge_and_by_ourselves(reply in reply()) {
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let mut bytes = BytesMut::new();
            encode(&reply, protocol, &mut bytes);
            let expected = normal(&reply, protocol);
            let theirs = match protocol {
                Protocol::Resp2 => {
                    let (frame, taken) = resp2::decode::decode(&bytes).unwrap().unwrap();
                    prop_assert_eq!(taken, bytes.len());
                    judged2(&frame)
                }
                Protocol::Resp3 => {
                    let (frame, taken) = resp3::decode::complete::decode(&bytes).unwrap().unwrap();
                    prop_assert_eq!(taken, bytes.len());
                    judged3(&frame)
                }
            };
            prop_assert_eq!(&theirs, &expected);
            for end in 0..bytes.len() {
                prop_assert_eq!(decode::decode(&mut BytesMut::from(&bytes[..end])), Ok(None), "cut at {}", end);
            }
            let ours = decode::decode(&mut bytes).unwrap().unwrap();
            prop_assert!(bytes.is_empty());
            prop_assert_eq!(normal(&ours, protocol), expected);
        }
    }
}

fn reply() -> impl Strategy<Value = Reply> {
    let text = "[a-zA-Z0-9 .:]{0,20}";
    let leaf = prop_oneof![
        text.prop_map(|text| Reply::Simple(text.into())),
        text.prop_map(|text| Reply::Error(CommandError::Other(format!("ERR {text}").into()))),
        any::<i64>().prop_map(Reply::Integer),
        vec(any::<u8>(), 0..40).prop_map(|bytes| Reply::Bulk(bytes.into())),
        Just(Reply::Nil),
        Just(Reply::NilArray),
        any::<f64>()
            .prop_filter("a number", |number| !number.is_nan())
            .prop_map(Reply::Double),
        any::<bool>().prop_map(Reply::Boolean),
        text.prop_map(|text| Reply::Verbatim(text.into())),
        any::<u128>().prop_map(|number| Reply::BigNumber(number.to_string().into())),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = || "[a-z]{1,8}".prop_map(Reply::bulk);
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Reply::Array),
            vec((inner.clone(), inner.clone()), 0..4).prop_map(Reply::Pairs),
            vec((key(), inner.clone()), 0..4).prop_map(|mut pairs| {
                pairs.sort_by_key(|(key, _)| format!("{key:?}"));
                pairs.dedup_by(|(left, _), (right, _)| left == right);
                Reply::Streams(pairs)
            }),
            prop::collection::btree_set("[a-z]{1,8}", 0..4)
                .prop_map(|items| Reply::Set(items.iter().map(Reply::bulk).collect())),
            vec((key(), inner), 0..4).prop_map(|mut pairs| {
                pairs.sort_by_key(|(key, _)| format!("{key:?}"));
                pairs.dedup_by(|(left, _), (right, _)| left == right);
                Reply::Map(pairs)
            }),
        ]
    })
}

/// A reply as a text that both judges' frames can be brought to as well.
fn normal(reply: &Reply, protocol: Protocol) -> String {
    let resp3 = protocol == Protocol::Resp3;
    let list = |items: &[Reply]| {
        items
            .iter()
            .map(|item| normal(item, protocol))
            .collect::<Vec<_>>()
    };
    match reply {
        Reply::Simple(text) => format!("+{text}"),
        Reply::Error(error) => format!("-{error}"),
        Reply::Waiting(_) => unreachable!("nothing waits here"),
        Reply::Integer(number) => format!(":{number}"),
        Reply::Bulk(bytes) => format!("${bytes:?}"),
        Reply::Nil | Reply::NilArray => "nil".to_owned(),
        Reply::Array(items) => format!("{:?}", list(items)),
        Reply::Set(items) if resp3 => sorted("set", list(items)),
        Reply::Set(items) => format!("{:?}", list(items)),
        Reply::Map(pairs) if resp3 => {
            let pair =
                |(key, value): &(Reply, Reply)| normal(key, protocol) + "=>" + &normal(value, protocol);
            sorted("map", pairs.iter().map(pair).collect())
        }
        Reply::Map(pairs) => {
            let flat: Vec<Reply> = pairs
                .iter()
                .flat_map(|(key, value)| [key.clone(), value.clone()])
                .collect();
            format!("{:?}", list(&flat))
        }
        Reply::Pairs(pairs) if resp3 => {
            let pair = |(left, right): &(Reply, Reply)| {
                normal(&Reply::Array(vec![left.clone(), right.clone()]), protocol)
            };
            format!("{:?}", pairs.iter().map(pair).collect::<Vec<_>>())
        }
        Reply::Pairs(pairs) => normal(&Reply::Map(pairs.clone()), protocol),
        Reply::Streams(pairs) if resp3 => normal(&Reply::Map(pairs.clone()), protocol),
        Reply::Streams(pairs) => {
            let pair = |(left, right): &(Reply, Reply)| Reply::Array(vec![left.clone(), right.clone()]);
            normal(&Reply::Array(pairs.iter().map(pair).collect()), protocol)
        }
        Reply::Double(number) if resp3 => format!(",{number:?}"),
        Reply::Double(number) => {
            let mut bytes = BytesMut::new();
            encode(&Reply::Double(*number), Protocol::Resp3, &mut bytes);
            format!("${:?}", Bytes::copy_from_slice(&bytes[1..bytes.len() - 2]))
        }
        Reply::Coordinate(number) => {
            let mut bytes = BytesMut::new();
            encode(&Reply::Coordinate(*number), protocol, &mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Reply::Boolean(yes) if resp3 => format!("#{yes}"),
        Reply::Boolean(yes) => format!(":{}", i64::from(*yes)),
        Reply::Verbatim(text) if resp3 => format!("={text:?}"),
        Reply::Verbatim(text) => format!("${text:?}"),
        Reply::BigNumber(digits) if resp3 => format!("({digits:?}"),
        Reply::BigNumber(digits) => format!("${digits:?}"),
    }
}

fn sorted(kind: &str, mut items: Vec<String>) -> String {
    items.sort();
    format!("{kind}{items:?}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn bytes(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn judged2(frame: &resp2::types::OwnedFrame) -> String {
    use resp2::types::OwnedFrame::*;
    match frame {
        SimpleString(data) => format!("+{}", text(data)),
        Error(data) => format!("-{data}"),
        Integer(number) => format!(":{number}"),
        BulkString(data) => format!("${:?}", bytes(data)),
        Null => "nil".to_owned(),
        Array(items) => format!("{:?}", items.iter().map(judged2).collect::<Vec<_>>()),
    }
}

fn judged3(frame: &resp3::types::OwnedFrame) -> String {
    use resp3::types::OwnedFrame::*;
    match frame {
        SimpleString { data, .. } => format!("+{}", text(data)),
        SimpleError { data, .. } => format!("-{data}"),
        Number { data, .. } => format!(":{data}"),
        BlobString { data, .. } => format!("${:?}", bytes(data)),
        Null => "nil".to_owned(),
        Double { data, .. } => format!(",{data:?}"),
        Boolean { data, .. } => format!("#{data}"),
        BigNumber { data, .. } => format!("({:?}", bytes(data)),
        VerbatimString { data, .. } => format!("={:?}", bytes(data)),
        Array { data, .. } => format!("{:?}", data.iter().map(judged3).collect::<Vec<_>>()),
        Set { data, .. } => sorted("set", data.iter().map(judged3).collect()),
        Map { data, .. } => sorted(
            "map",
            data.iter()
                .map(|(key, value)| judged3(key) + "=>" + &judged3(value))
                .collect(),
        ),
        other => panic!("never written: {other:?}"),
    }
}

fn error_of(bytes: &[u8], known: bool) -> Option<String> {
    parse([bytes], known)
        .1
        .map(|error| error.to_string().split_off("ERR Protocol error: ".len()))
}

#[test]
fn each_protocol_error_has_the_text_of_redis() {
    let long = |head: &str| {
        head.as_bytes()
            .iter()
            .copied()
            .chain(std::iter::repeat_n(b'1', LINE_MAX_BYTES + 1))
            .collect::<Vec<u8>>()
    };
    for (bytes, text) in [
        (b"*x\r\n".to_vec(), "invalid multibulk length"),
        (b"*\r\n".to_vec(), "invalid multibulk length"),
        (b"*+1\r\n".to_vec(), "invalid multibulk length"),
        (b"*65\r\n".to_vec(), "invalid multibulk length"),
        (b"*1\r\n$x\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$-1\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$65537\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\nPING\r\n".to_vec(), "expected '$', got 'P'"),
        (b"\"abc\r\n".to_vec(), "unbalanced quotes in request"),
        (b"'abc\r\n".to_vec(), "unbalanced quotes in request"),
        (b"\"a\"b\r\n".to_vec(), "unbalanced quotes in request"),
        (long(""), "too big inline request"),
        (long("*"), "too big mbulk count string"),
        (long("*1\r\n$"), "too big bulk count string"),
    ] {
        assert_eq!(error_of(&bytes, true).as_deref(), Some(text));
    }
    assert_eq!(
        error_of(b"*11\r\n", false).as_deref(),
        Some("unauthenticated multibulk length")
    );
    assert_eq!(
        error_of(b"*2\r\n$16385\r\n", false).as_deref(),
        Some("unauthenticated bulk length")
    );
    assert_eq!(error_of(b"*10\r\n$16384\r\n", false), None);
    assert_eq!(error_of(b"*11\r\n$16385\r\n", true), None);
}

#[test]
fn many_arguments_within_their_limits_are_refused_when_all_together_are_too_much() {
    let argument = vec![b'a'; LIMITS.bulk_bytes];
    let command: Vec<&[u8]> = vec![&argument; 8];
    assert_eq!(
        error_of(&decode::request(command), true).as_deref(),
        Some("too big request")
    );
}

#[test]
fn an_announced_length_reserves_nothing() {
    let limits = Limits::new(1 << 20, 512 << 20);
    let (mut parser, mut input) = (
        Parser::new(limits),
        BytesMut::from(&b"*1048576\r\n$536870912\r\n"[..]),
    );
    let before = input.capacity();
    assert_eq!(parser.next(&mut input, true), Ok(None));
    assert_eq!(input.capacity(), before);
    assert!(std::mem::size_of_val(&parser) < 200);
}

#[test]
fn words_are_split_and_unquoted_as_redis_does() {
    let split = |line: &str| {
        split_quoted(line.as_bytes()).map(|words| words.iter().map(|word| text(word)).collect::<Vec<_>>())
    };
    for (line, words) in [
        ("", vec![]),
        ("  \t ", vec![]),
        ("SET k v", vec!["SET", "k", "v"]),
        ("  SET \t k\x0b v  ", vec!["SET", "k", "v"]),
        (r#"a "b c" d"#, vec!["a", "b c", "d"]),
        (r#""\x41\n\r\t\"\\\q""#, vec!["A\n\r\t\"\\q"]),
        (r#""\xZZ""#, vec!["xZZ"]),
        (r"'a\'b\n'", vec!["a'b\\n"]),
        (r#"foo"bar""#, vec!["foobar"]),
        (r#""" ''"#, vec!["", ""]),
        ("a\0b", vec!["a"]),
    ] {
        assert_eq!(
            split(line),
            Some(words.into_iter().map(str::to_owned).collect()),
            "{line:?}"
        );
    }
    for line in ["\"", "'", "\"a", "'a\\'", "\"a\"b", "'a'b", "\"a\\", "a \"b\"'c'"] {
        assert_eq!(split(line), None, "{line:?}");
    }
}

#[test]
fn empty_commands_are_passed_over() {
    let (commands, error) = parse([&b"\r\n*0\r\n*-1\r\n   \r\nPING\r\n"[..]], true);
    assert_eq!((commands, error), (vec![vec![Bytes::from("PING")]], None));
}

#[test]
fn doubles_are_printed_as_c_prints_them() {
    for (number, text) in [
        (3.0, "3"),
        (-0.0, "-0"),
        (0.1, "0.10000000000000001"),
        (1e17, "1e+17"),
        (1e16, "10000000000000000"),
        (1e-4, "0.0001"),
        (1e-5, "1.0000000000000001e-05"),
        (1.5e300, "1.5000000000000001e+300"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
    ] {
        let mut bytes = BytesMut::new();
        encode(&Reply::Double(number), Protocol::Resp3, &mut bytes);
        assert_eq!(bytes, format!(",{text}\r\n"));
    }
}

#[test]
fn coordinates_are_printed_without_exponent() {
    for (number, text) in [
        (13.361389338970184, "13.36138933897018433"),
        (-0.0, "0"),
        (1e-18, "0"),
        (0.000001, "0.000001"),
        (180.0, "180"),
    ] {
        let mut bytes = BytesMut::new();
        encode(&Reply::Coordinate(number), Protocol::Resp3, &mut bytes);
        assert_eq!(bytes, format!(",{text}\r\n"));
        bytes.clear();
        encode(&Reply::Coordinate(number), Protocol::Resp2, &mut bytes);
        assert_eq!(bytes, format!("${}\r\n{text}\r\n", text.len()));
    }
}

#[test]
fn a_line_cannot_be_broken_from_inside() {
    let mut bytes = BytesMut::new();
    encode(
        &Reply::Error(CommandError::Other("ERR a\r\n+OK\nb".into())),
        Protocol::Resp2,
        &mut bytes,
    );
    assert_eq!(bytes, "-ERR a  +OK b\r\n");
}

#[test]
fn replies_of_a_stranger_are_refused_without_harm() {
    let error = |bytes: &[u8]| decode::decode(&mut BytesMut::from(bytes)).unwrap_err();
    assert_eq!(error(b"HTTP/1.1 400 Bad Request\r\n"), DecodeError::Kind(b'H'));
    assert_eq!(error(b"$536870913\r\n"), DecodeError::Number);
    assert_eq!(error(b"*x\r\n"), DecodeError::Number);
    assert_eq!(error(b"$1\r\nabc"), DecodeError::Malformed);
    assert_eq!(error("*1\r\n".repeat(40).as_bytes()), DecodeError::Nesting);
}
