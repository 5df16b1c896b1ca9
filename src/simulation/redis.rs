//! A client of Redis: one connection at a time, to the endpoint of any machine, which breaks at any moment.
//!
//! The network is the simulated one, the endpoint `edge/resp` as it is. What a client is told of its commands is one of three: a reply, nothing because they were
//! never sent, or nothing though they were.

use super::clients::Fate;
use super::world::endpoint;
use crate::edge::resp::decode::{decode, request};
use crate::machine::reply::Reply;
use crate::node::Token;
use crate::raft::net::simulated::{Host, Place, Wire};
use bytes::BytesMut;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// How long a client waits for a connection.
const CONNECTS: Duration = Duration::from_secs(2);

/// How long it waits for replies by default: about as long as a write waits at most, so that it gives up before and after.
pub(super) const PATIENCE: Duration = Duration::from_millis(5_050);

/// What is answered to who names a script that is not known.
const NOSCRIPT: &str = "NOSCRIPT ";

/// One who speaks to the endpoints.
pub(super) struct Client {
    place: Place,
    connection: Option<Connection>,
    /// How long it waits for the replies to what it sent together.
    pub(super) patience: Duration,
}

struct Connection {
    wire: Wire,
    came: BytesMut,
}

/// What a client was told of a command.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Reply(Reply),
    /// It was not sent.
    Unsent,
    /// Its reply did not come.
    Lost,
}

impl Answer {
    /// What became of a write, by the first word of an error (`edge/resp/mod.rs`): whatever may have been applied says so.
    pub(super) fn fate(&self) -> Fate {
        match self {
            Self::Reply(Reply::Error(error)) if error.to_string().starts_with("UNKNOWN ") => Fate::Unknown,
            Self::Reply(Reply::Error(_)) | Self::Unsent => Fate::Refused,
            Self::Reply(_) => Fate::Acknowledged(Token::default()),
            Self::Lost => Fate::Unknown,
        }
    }

    /// The integer that was replied.
    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Reply(Reply::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    /// The number in a bulk, 0 for none.
    pub(super) fn number(&self) -> Option<i64> {
        match self {
            Self::Reply(Reply::Nil) => Some(0),
            Self::Reply(Reply::Bulk(bytes)) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// Whether the script that was named is one that the node does not know.
    pub(super) fn is_unknown_script(&self) -> bool {
        matches!(self, Self::Reply(Reply::Error(error)) if error.to_string().starts_with(NOSCRIPT))
    }

    /// Whether clients send what came with it again, all of it: redis-py at the first of these words, go-redis at both.
    pub(super) fn is_sent_again(&self) -> bool {
        let begins = |text: &str| text.starts_with("LOADING ") || text.starts_with("TRYAGAIN ");
        matches!(self, Self::Reply(Reply::Error(error)) if begins(&error.to_string()))
    }

    /// An error that is none of this cluster's trouble: one that no command here may have.
    pub(super) fn fault(&self) -> Option<String> {
        // Of `ERR` those that stand behind a write.
        const TROUBLE: [&str; 8] = [
            "LOADING ",
            "TRYAGAIN ",
            "UNKNOWN ",
            NOSCRIPT,
            "ERR no leader for ",
            "ERR overloaded: ",
            "ERR not fresh enough ",
            "ERR this node has stopped: ",
        ];
        match self {
            Self::Reply(Reply::Error(error)) => {
                let text = error.to_string();
                let known = TROUBLE.iter().any(|prefix| text.starts_with(prefix));
                (!known).then_some(text)
            }
            _ => None,
        }
    }
}

/// The words of a command.
pub(super) fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(ToString::to_string).collect()
}

impl Client {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            connection: None,
            patience: PATIENCE,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Connects to a machine's endpoint. Whether it came to that.
    pub(super) async fn connect(&mut self, host: Host) -> bool {
        let connected = timeout(CONNECTS, self.place.connect(&endpoint(host))).await;
        self.connection = connected.ok().and_then(Result::ok).map(|wire| Connection {
            wire,
            came: BytesMut::new(),
        });
        self.is_connected()
    }

    /// Hangs up.
    pub(super) fn leave(&mut self) {
        self.connection = None;
    }

    /// Sends commands together, and waits for the reply to each. A connection that leaves one out is given up.
    pub(super) async fn ask(&mut self, commands: &[Vec<String>]) -> Vec<Answer> {
        let Some(mut connection) = self.connection.take() else {
            return vec![Answer::Unsent; commands.len()];
        };
        let mut answers = Vec::new();
        let whole = timeout(self.patience, connection.ask(commands, &mut answers)).await;
        if whole == Ok(Some(())) {
            self.connection = Some(connection);
        }
        answers.resize(commands.len(), Answer::Lost);
        answers
    }
}

impl Connection {
    /// The answers so far stay where it breaks: then nothing is returned.
    async fn ask(&mut self, commands: &[Vec<String>], answers: &mut Vec<Answer>) -> Option<()> {
        let sent: Vec<u8> = commands.iter().flat_map(request).collect();
        self.wire.write_all(&sent).await.ok()?;
        while answers.len() < commands.len() {
            match decode(&mut self.came).expect("the endpoint speaks RESP") {
                Some(reply) => answers.push(Answer::Reply(reply)),
                None => {
                    let bytes = self.wire.read_buf(&mut self.came).await.ok()?;
                    (bytes > 0).then_some(())?;
                }
            }
        }
        Some(())
    }
}
