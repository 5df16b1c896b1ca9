//! A Redis client that sends one command and waits for its reply: for `plenary status` and for examples. Not for load: it
//! blocks, and keeps one connection.

use crate::config::Secret;
use crate::machine::reply::{CommandError, Reply};
use bytes::Bytes;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long connecting may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// How long a reply may take. Adding a member waits until it has caught up.
const REPLY_TIME_MAX: Duration = Duration::from_secs(60);

/// Bytes of a line, a bulk and all bulks of one reply.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// Elements of one array.
const ELEMENTS_MAX: usize = 1 << 16;

/// Arrays in arrays.
const DEPTH_MAX: usize = 8;

/// A connection to a node's Redis port.
#[derive(Debug)]
pub struct Client {
    address: String,
    stream: BufReader<TcpStream>,
}

/// Why there is no reply to use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody could be reached there.
    #[error(
        "cannot connect to {address}: {source}. Does a node serve Redis clients there (`plenary serve --resp`)?"
    )]
    Connect {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, or what came is not RESP.
    #[error("{address}: {source}. Is it a Plenary node's Redis port?")]
    Broken {
        /// The address.
        address: String,
        /// What the system said, or what is wrong with the bytes.
        source: io::Error,
    },
    /// The node refused the command.
    #[error("{address} refused: {refusal}{}", advice(refusal))]
    Refused {
        /// The address.
        address: String,
        /// The refusal, prefix first.
        refusal: String,
    },
    /// The node's answer has another form than this version knows.
    #[error("{address}: {why}. Is it of the same version as this program?")]
    Strange {
        /// The address.
        address: String,
        /// What is strange.
        why: String,
    },
}

fn advice(refusal: &str) -> &'static str {
    match refusal.split(' ').next() {
        Some("NOAUTH") => ". Give --access-key-file",
        Some("WRONGPASS") => ". Check the access key",
        _ => "",
    }
}

impl Client {
    /// Connects to `host:port` and gives the key, if there is one.
    ///
    /// # Errors
    /// [`Error::Connect`] within three seconds; [`Error::Refused`] when the key is wrong.
    pub fn connect(address: &str, key: Option<&Secret>) -> Result<Self, Error> {
        let refused = |source| Error::Connect {
            address: address.to_owned(),
            source,
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for candidate in address.to_socket_addrs().map_err(refused)? {
            match Self::open(&candidate) {
                Ok(stream) => {
                    let mut client = Self {
                        address: address.to_owned(),
                        stream: BufReader::new(stream),
                    };
                    if let Some(key) = key {
                        client.call(&["AUTH", key.expose()])?;
                    }
                    return Ok(client);
                }
                Err(error) => last = error,
            }
        }
        Err(refused(last))
    }

    fn open(address: &std::net::SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(address, CONNECT_TIME_MAX)?;
        stream.set_read_timeout(Some(REPLY_TIME_MAX))?;
        stream.set_write_timeout(Some(CONNECT_TIME_MAX))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Where it is connected to, as it was told.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends one command and waits for its reply, at most a minute.
    ///
    /// # Errors
    /// [`Error::Refused`] for an error reply, [`Error::Broken`] for all else.
    pub fn call<A: AsRef<[u8]>>(&mut self, argv: &[A]) -> Result<Reply, Error> {
        let address = self.address.clone();
        match self.exchange(argv) {
            Ok(Reply::Error(refusal)) => Err(Error::Refused {
                address,
                refusal: refusal.to_string(),
            }),
            Ok(reply) => Ok(reply),
            Err(source) => Err(Error::Broken { address, source }),
        }
    }

    fn exchange<A: AsRef<[u8]>>(&mut self, argv: &[A]) -> io::Result<Reply> {
        let mut command = format!("*{}\r\n", argv.len()).into_bytes();
        for argument in argv {
            let argument = argument.as_ref();
            command.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            command.extend_from_slice(argument);
            command.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&command)?;
        decode(&mut self.stream, &mut { REPLY_BYTES_MAX }, DEPTH_MAX)
    }
}

/// The text of a reply of one line, for a person.
pub fn text(reply: &Reply) -> String {
    match reply {
        Reply::Simple(text) => text.to_string(),
        Reply::Integer(number) => number.to_string(),
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Nil | Reply::NilArray => "(nil)".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Reads one RESP2 reply: a connection that never said `HELLO 3` gets no other. `room` is what may still come, in bytes.
fn decode(from: &mut impl BufRead, room: &mut usize, depth: usize) -> io::Result<Reply> {
    let line = line(from, room)?;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| damaged("an empty line"))?;
    match kind {
        "+" => Ok(Reply::Simple(rest.to_owned().into())),
        "-" => Ok(Reply::Error(CommandError::Other(rest.to_owned().into()))),
        ":" => Ok(Reply::Integer(number(rest)?)),
        "$" | "*" if rest == "-1" => Ok(if kind == "$" { Reply::Nil } else { Reply::NilArray }),
        "$" => bulk(from, length(rest, *room)?, room),
        "*" if depth == 0 => Err(damaged("arrays nested too deep")),
        "*" => {
            let count = length(rest, ELEMENTS_MAX)?;
            Ok(Reply::Array(
                (0..count)
                    .map(|_| decode(from, room, depth - 1))
                    .collect::<io::Result<_>>()?,
            ))
        }
        _ => Err(damaged("a reply of unknown type")),
    }
}

fn bulk(from: &mut impl BufRead, length: usize, room: &mut usize) -> io::Result<Reply> {
    let mut bytes = vec![0; length + 2];
    from.read_exact(&mut bytes)?;
    *room = room.saturating_sub(length);
    if !bytes.ends_with(b"\r\n") {
        return Err(damaged("a bulk that does not end where it should"));
    }
    bytes.truncate(length);
    Ok(Reply::Bulk(Bytes::from(bytes)))
}

fn line(from: &mut impl BufRead, room: &mut usize) -> io::Result<String> {
    let mut line = Vec::new();
    from.take(*room as u64).read_until(b'\n', &mut line)?;
    *room = room.saturating_sub(line.len());
    match line.strip_suffix(b"\r\n") {
        Some(text) => String::from_utf8(text.to_vec()).map_err(|_| damaged("a line that is not text")),
        None if line.is_empty() => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection was closed",
        )),
        None => Err(damaged("a line without end")),
    }
}

fn length(text: &str, limit: usize) -> io::Result<usize> {
    let length = usize::try_from(number(text)?).map_err(|_| damaged("a negative length"))?;
    if length > limit {
        Err(damaged("a reply larger than this program takes"))
    } else {
        Ok(length)
    }
}

fn number(text: &str) -> io::Result<i64> {
    text.parse().map_err(|_| damaged("a number that is none"))
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(mut bytes: &[u8]) -> io::Result<Reply> {
        decode(&mut bytes, &mut { REPLY_BYTES_MAX }, DEPTH_MAX)
    }

    #[test]
    fn replies_are_read() {
        let good: [(&[u8], Reply); 7] = [
            (b"+OK\r\n", Reply::OK),
            (b":-7\r\n", Reply::Integer(-7)),
            (b"$5\r\na\r\nbc\r\n", Reply::bulk("a\r\nbc")),
            (b"$-1\r\n", Reply::Nil),
            (b"*-1\r\n", Reply::NilArray),
            (
                b"*2\r\n:1\r\n*1\r\n$0\r\n\r\n",
                Reply::Array(vec![Reply::Integer(1), Reply::bulks([""])]),
            ),
            (b"-ERR no\r\n", Reply::Error(CommandError::text("ERR no"))),
        ];
        for (bytes, reply) in good {
            assert_eq!(decoded(bytes).expect("good"), reply);
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let nested = b"*1\r\n".repeat(DEPTH_MAX + 1);
        let bad: [&[u8]; 10] = [
            b"",
            b"\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b":x\r\n",
            b"$3\r\nabcd\r\n",
            b"$3\r\nab",
            b"$99999999999\r\n",
            b"*99999999\r\n",
            b"+no end",
            &nested,
        ];
        for bytes in bad {
            assert!(decoded(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
