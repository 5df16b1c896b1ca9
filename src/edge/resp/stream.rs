//! The two directions of a client's stream: plain TCP without a detour, or anything else that carries bytes (TLS).

use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Carries bytes both ways.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A client's stream.
pub(super) enum Stream {
    /// As it comes from the socket.
    Plain(TcpStream),
    /// What a layer over the socket gives.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "TLS is the only such layer"))]
    Wrapped(Box<dyn Duplex>),
}

impl Stream {
    /// The address of this side, where the system tells it.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(stream) => stream.local_addr().ok(),
            Self::Wrapped(_) => None,
        }
    }

    /// The direction to read from, and the one to write to.
    pub(super) fn into_split(self) -> (Reader, Writer) {
        match self {
            Self::Plain(stream) => {
                let (reader, writer) = stream.into_split();
                (Reader::Plain(reader), Writer::Plain(writer))
            }
            Self::Wrapped(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                (Reader::Wrapped(reader), Writer::Wrapped(writer))
            }
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

/// What a client sends.
pub(super) enum Reader {
    Plain(OwnedReadHalf),
    Wrapped(ReadHalf<Box<dyn Duplex>>),
}

/// Where its replies go.
pub(super) enum Writer {
    Plain(OwnedWriteHalf),
    Wrapped(WriteHalf<Box<dyn Duplex>>),
}

impl Writer {
    /// Whether it may say that it wrote what the system has not taken yet: only a flush sends that. TLS keeps up to 64 KiB so.
    pub(super) fn keeps(&self) -> bool {
        matches!(self, Self::Wrapped(_))
    }

    /// Writes some of the replies, and how many bytes; 0: there were none, and all that was written before is sent. Cancel-safe.
    pub(super) async fn give(&mut self, replies: &mut BytesMut) -> io::Result<usize> {
        if replies.is_empty() {
            return self.flush().await.map(|()| 0);
        }
        match self.write_buf(replies).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            bytes => Ok(bytes),
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(reader) => Pin::new(reader).poll_read(context, buffer),
            Self::Wrapped(reader) => Pin::new(reader).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(writer) => Pin::new(writer).poll_write(context, bytes),
            Self::Wrapped(writer) => Pin::new(writer).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(writer) => Pin::new(writer).poll_flush(context),
            Self::Wrapped(writer) => Pin::new(writer).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(writer) => Pin::new(writer).poll_shutdown(context),
            Self::Wrapped(writer) => Pin::new(writer).poll_shutdown(context),
        }
    }
}
