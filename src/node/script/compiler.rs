//! Whether a text is a script or a library: a thread and an engine of their own, so that loading one waits for no script that runs.

use super::engine::{self, Engine, Library};
use crate::machine::reply::CommandError;
use crate::raft::ground;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// Texts that wait, at most.
const QUEUE: usize = 1_024;

const GONE: CommandError = CommandError::text("ERR scripts cannot run on this node");

/// What the thread is told.
enum Message {
    Compile(Bytes, oneshot::Sender<Result<String, CommandError>>),
    Load(Bytes, oneshot::Sender<Result<Library, CommandError>>),
}

/// The way to the thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Compiler(mpsc::Sender<Message>);

impl Compiler {
    pub(super) fn start(limits: engine::Limits) -> Self {
        let (sender, messages) = mpsc::channel(QUEUE);
        let work = async move || match Engine::new(limits) {
            Ok(engine) => serve(engine, messages).await,
            Err(error) => tracing::error!(%error, "scripts cannot be loaded on this node"),
        };
        if let Err(error) = ground::thread("plenary-compile", engine::STACK_BYTES, work) {
            tracing::error!(%error, "scripts cannot be loaded on this node");
        }
        Self(sender)
    }

    /// Compiles a script; its SHA-1.
    pub(super) async fn compile(&self, text: Bytes) -> Result<String, CommandError> {
        self.ask(|answer| Message::Compile(text, answer)).await
    }

    /// Loads a library for the list of its functions.
    pub(super) async fn load_library(&self, code: Bytes) -> Result<Library, CommandError> {
        self.ask(|answer| Message::Load(code, answer)).await
    }

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<T, CommandError>>) -> Message,
    ) -> Result<T, CommandError> {
        const MANY: CommandError = CommandError::text("TRYAGAIN too many scripts are being loaded");
        let (answer, answered) = oneshot::channel();
        self.0.try_send(message(answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => MANY,
            mpsc::error::TrySendError::Closed(_) => GONE,
        })?;
        answered.await.map_err(|_| GONE)?
    }
}

async fn serve(mut engine: Engine, mut messages: mpsc::Receiver<Message>) {
    while let Some(message) = messages.recv().await {
        // Whoever asked may have gone.
        match message {
            Message::Compile(text, answer) => drop(answer.send(engine.compile(&text))),
            Message::Load(code, answer) => drop(answer.send(engine.load_library(&code))),
        }
        engine.tidy();
    }
}
