//! What a connection does while one of its commands waits: it gives and takes bytes, notices a hang-up, and runs nothing else.

use super::connection::{Connection, End};
use crate::machine::reply::Reply;
use crate::node::Wait;
use std::pin::pin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes of further commands that are taken in while one waits. Beyond it nothing is read, and a hang-up is noticed later.
const WAITING_INPUT_BYTES: usize = 1 << 20;

/// Bytes that one read makes room for.
const READ_BYTES: usize = 4 << 10;

impl Connection {
    /// The answer of a command that waits in the log. The client that goes takes it back.
    pub(super) async fn wait(&mut self, mut wait: Wait) -> Result<Reply, End> {
        self.attend(async move { wait.answer().await }).await
    }

    /// Does what else there is to do until `task` is done.
    async fn attend<T>(&mut self, task: impl Future<Output = T>) -> Result<T, End> {
        let mut task = pin!(task);
        let client = self.caller.client.clone();
        loop {
            client.outbox.take(&mut self.output);
            let (waiting, reading) = (!self.output.is_empty(), self.input.len() < WAITING_INPUT_BYTES);
            if reading {
                self.input.reserve(READ_BYTES);
            }
            tokio::select! {
                biased;
                result = &mut task => return Ok(result),
                written = self.writer.write_buf(&mut self.output), if waiting => self.wrote(written)?,
                () = client.ended() => return Err(End::Ended),
                () = client.outbox.woken() => {}
                read = self.reader.read_buf(&mut self.input), if reading => self.received(read)?,
            }
        }
    }
}
