//! A Redis client that sends one command and waits for its reply: for `plenary status` and for examples. Not for load: it
//! blocks, and keeps one connection.

use crate::config::Secret;
use crate::edge::resp::decode::{decode, request};
use crate::machine::reply::Reply;
use bytes::BytesMut;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long connecting may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// How long a reply may take. Adding a member waits until it has caught up.
const REPLY_TIME_MAX: Duration = Duration::from_secs(60);

/// Bytes of one reply.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;

/// A connection to a node's Redis port.
#[derive(Debug)]
pub struct Client {
    address: String,
    stream: TcpStream,
    /// What came and is not a whole reply yet.
    received: BytesMut,
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
                        stream,
                        received: BytesMut::new(),
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

    /// Waits less or more than a minute for each reply from now on.
    ///
    /// # Errors
    /// [`Error::Broken`] when the system does not take it: a time of zero.
    pub fn set_reply_time_max(&self, limit: Duration) -> Result<(), Error> {
        self.stream
            .set_read_timeout(Some(limit))
            .map_err(|source| Error::Broken {
                address: self.address.clone(),
                source,
            })
    }

    /// Where it is connected to, as it was told.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends one command and waits for its reply, at most a minute unless told otherwise.
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

    /// Waits for what comes next without having asked: a subscriber's messages.
    ///
    /// # Errors
    /// [`Error::Broken`], also when nothing comes within the time for a reply; the connection is of no use then.
    pub fn receive(&mut self) -> Result<Reply, Error> {
        let address = self.address.clone();
        self.next_reply()
            .map_err(|source| Error::Broken { address, source })
    }

    fn exchange<A: AsRef<[u8]>>(&mut self, argv: &[A]) -> io::Result<Reply> {
        self.stream.write_all(&request(argv))?;
        self.next_reply()
    }

    fn next_reply(&mut self) -> io::Result<Reply> {
        let mut bytes = vec![0; READ_BYTES];
        loop {
            let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            if let Some(reply) = decode(&mut self.received).map_err(damaged)? {
                return Ok(reply);
            }
            if self.received.len() > REPLY_BYTES_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a reply larger than 16 MiB",
                ));
            }
            match self.stream.read(&mut bytes)? {
                0 => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the connection was closed",
                    ));
                }
                count => self.received.extend_from_slice(&bytes[..count]),
            }
        }
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
