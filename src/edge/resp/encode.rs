//! Replies as bytes, in RESP2 or RESP3: `HELLO` chooses. Pure; knows nothing of connections.

use crate::machine::reply::{Reply, coordinate_text, double_text};
use bytes::{BufMut, BytesMut};

/// The version of the protocol a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What every client starts with.
    #[default]
    Resp2,
    /// Maps, sets, doubles, booleans and a null of their own.
    Resp3,
}

/// `out` would hold more than it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Appends a reply to `out`.
#[inline]
pub fn encode(reply: &Reply, protocol: Protocol, out: &mut BytesMut) {
    encode_within(reply, protocol, usize::MAX, out).expect("nothing in memory is as large");
}

/// Appends a reply to `out`, or what there is of it when `out` would hold more than `most` bytes, the last line end and number aside. A value that
/// is answered a thousand times stands in memory once; here it would a thousand times.
pub(super) fn encode_within(
    reply: &Reply,
    protocol: Protocol,
    most: usize,
    out: &mut BytesMut,
) -> Result<(), Full> {
    let resp3 = protocol == Protocol::Resp3;
    match reply {
        Reply::Simple(text) => line(b'+', text.as_bytes(), out),
        Reply::Error(error) => line(b'-', error.to_string().as_bytes(), out),
        Reply::Integer(number) => header(b':', *number, out),
        Reply::Bulk(bytes) | Reply::Verbatim(bytes) | Reply::BigNumber(bytes)
            if bytes.len() > most.saturating_sub(out.len()) =>
        {
            return Err(Full);
        }
        Reply::Bulk(bytes) => bulk(bytes, out),
        // Whoever speaks for a client waits for the answer first; a nil keeps the order of replies if it did not.
        Reply::Nil | Reply::Waiting(_) if !resp3 => out.put_slice(b"$-1\r\n"),
        Reply::NilArray if !resp3 => out.put_slice(b"*-1\r\n"),
        Reply::Nil | Reply::NilArray | Reply::Waiting(_) => out.put_slice(b"_\r\n"),
        Reply::Array(items) => list(b'*', items, protocol, most, out)?,
        Reply::Set(items) => list(if resp3 { b'~' } else { b'*' }, items, protocol, most, out)?,
        Reply::Map(pairs) => {
            if resp3 {
                count(b'%', pairs.len(), out)
            } else {
                count(b'*', pairs.len() * 2, out)
            }
            for (key, value) in pairs {
                still_fits(most, out)?;
                encode_within(key, protocol, most, out)?;
                encode_within(value, protocol, most, out)?;
            }
        }
        Reply::Pairs(pairs) => {
            count(b'*', if resp3 { pairs.len() } else { pairs.len() * 2 }, out);
            for (left, right) in pairs {
                still_fits(most, out)?;
                if resp3 {
                    count(b'*', 2, out);
                }
                encode_within(left, protocol, most, out)?;
                encode_within(right, protocol, most, out)?;
            }
        }
        Reply::Streams(pairs) => {
            count(if resp3 { b'%' } else { b'*' }, pairs.len(), out);
            for (key, value) in pairs {
                still_fits(most, out)?;
                if !resp3 {
                    count(b'*', 2, out);
                }
                encode_within(key, protocol, most, out)?;
                encode_within(value, protocol, most, out)?;
            }
        }
        Reply::Double(number) => float(&double_text(*number), resp3, out),
        Reply::Coordinate(number) => float(&coordinate_text(*number), resp3, out),
        Reply::Boolean(yes) if resp3 => out.put_slice(if *yes { b"#t\r\n" } else { b"#f\r\n" }),
        Reply::Boolean(yes) => header(b':', i64::from(*yes), out),
        Reply::Verbatim(text) if resp3 => {
            count(b'=', text.len() + 4, out);
            out.put_slice(b"txt:");
            out.put_slice(text);
            out.put_slice(b"\r\n");
        }
        Reply::Verbatim(text) => bulk(text, out),
        Reply::BigNumber(digits) if resp3 => {
            out.put_u8(b'(');
            out.put_slice(digits);
            out.put_slice(b"\r\n");
        }
        Reply::BigNumber(digits) => bulk(digits, out),
    }
    Ok(())
}

/// A bound from below of the bytes that a reply takes, in either version.
pub(super) fn least_len(reply: &Reply) -> usize {
    /// `_` CR LF: nothing is shorter.
    const LEAST: usize = 3;
    /// `$`, a digit, and twice CR LF.
    const BULK: usize = 6;
    let of_all = |items: &[Reply]| items.iter().map(least_len).sum::<usize>();
    match reply {
        Reply::Bulk(bytes) | Reply::Verbatim(bytes) => BULK + bytes.len(),
        Reply::BigNumber(digits) => LEAST + digits.len(),
        Reply::Array(items) | Reply::Set(items) => LEAST + of_all(items),
        Reply::Map(pairs) | Reply::Pairs(pairs) | Reply::Streams(pairs) => {
            let of_pair = |(left, right): &(Reply, Reply)| least_len(left) + least_len(right);
            LEAST + pairs.iter().map(of_pair).sum::<usize>()
        }
        _ => LEAST,
    }
}

/// Begins an array of so many replies.
pub(super) fn array(items: usize, out: &mut BytesMut) {
    count(b'*', items, out);
}

/// Begins what is told without being asked for: an array in RESP2.
pub(super) fn push(items: usize, protocol: Protocol, out: &mut BytesMut) {
    let kind = if protocol == Protocol::Resp3 { b'>' } else { b'*' };
    count(kind, items, out);
}

/// The head of attributes, which say something of the reply behind them; for RESP3 alone.
pub(super) fn attributes(pairs: usize, out: &mut BytesMut) {
    count(b'|', pairs, out);
}

fn list(kind: u8, items: &[Reply], protocol: Protocol, most: usize, out: &mut BytesMut) -> Result<(), Full> {
    count(kind, items.len(), out);
    for item in items {
        still_fits(most, out)?;
        encode_within(item, protocol, most, out)?;
    }
    Ok(())
}

fn still_fits(most: usize, out: &BytesMut) -> Result<(), Full> {
    if out.len() > most { Err(Full) } else { Ok(()) }
}

fn float(text: &str, resp3: bool, out: &mut BytesMut) {
    if resp3 {
        line(b',', text.as_bytes(), out);
    } else {
        bulk(text.as_bytes(), out);
    }
}

/// Bytes.
pub(super) fn bulk(bytes: &[u8], out: &mut BytesMut) {
    count(b'$', bytes.len(), out);
    out.reserve(bytes.len() + 2);
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

/// A line cannot hold a line's end: as Redis does, a space stands for each CR and LF.
fn line(kind: u8, text: &[u8], out: &mut BytesMut) {
    out.reserve(text.len() + 3);
    out.put_u8(kind);
    let start = out.len();
    out.put_slice(text);
    for byte in &mut out[start..] {
        if matches!(*byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    out.put_slice(b"\r\n");
}

fn count(kind: u8, count: usize, out: &mut BytesMut) {
    header(
        kind,
        i64::try_from(count).expect("nothing in memory has 2^63 items"),
        out,
    );
}

/// `kind`, the number in decimal, CR LF.
fn header(kind: u8, number: i64, out: &mut BytesMut) {
    // Kind, sign, 19 digits, CR, LF: filled from the end.
    let mut text = [0; 23];
    let mut at = text.len() - 2;
    text[at..].copy_from_slice(b"\r\n");
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        text[at] = b'0' + u8::try_from(rest % 10).expect("below ten");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        text[at] = b'-';
    }
    at -= 1;
    text[at] = kind;
    out.put_slice(&text[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const BOTH: [Protocol; 2] = [Protocol::Resp2, Protocol::Resp3];

    fn one_of_each() -> Reply {
        let pairs = || vec![(Reply::bulk("a"), Reply::Bulk(Bytes::new()))];
        Reply::Array(vec![
            Reply::Simple("".into()),
            Reply::Integer(0),
            Reply::bulk("b"),
            Reply::Nil,
            Reply::NilArray,
            Reply::Array(Vec::new()),
            Reply::Map(pairs()),
            Reply::Pairs(pairs()),
            Reply::Streams(pairs()),
            Reply::Set(vec![Reply::Boolean(true)]),
            Reply::Double(0.0),
            Reply::Coordinate(0.0),
            Reply::Verbatim(Bytes::new()),
            Reply::BigNumber(Bytes::from_static(b"1")),
            Reply::Waiting(1),
        ])
    }

    #[test]
    fn a_value_that_is_answered_many_times_is_not_copied_beyond_the_bound() {
        let value = Reply::Bulk(Bytes::from(vec![b'x'; 1 << 20]));
        let all = Reply::Array(vec![value; 1_000]);
        for protocol in BOTH {
            let mut out = BytesMut::new();
            assert_eq!(encode_within(&all, protocol, 4 << 20, &mut out), Err(Full));
            assert!(out.len() <= 4 << 20, "{}", out.len());
        }
    }

    #[test]
    fn what_fits_is_written_as_without_a_bound() {
        for protocol in BOTH {
            let (mut out, mut within) = (BytesMut::new(), BytesMut::new());
            encode(&one_of_each(), protocol, &mut out);
            assert_eq!(
                encode_within(&one_of_each(), protocol, out.len(), &mut within),
                Ok(())
            );
            assert_eq!(out, within);
        }
    }

    #[test]
    fn no_reply_takes_less_than_its_bound_from_below() {
        let Reply::Array(mut replies) = one_of_each() else {
            unreachable!("see there")
        };
        replies.push(one_of_each());
        for (reply, protocol) in replies.iter().flat_map(|reply| BOTH.map(|two| (reply, two))) {
            let mut out = BytesMut::new();
            encode(reply, protocol, &mut out);
            assert!(least_len(reply) <= out.len(), "{reply:?}");
        }
    }
}
