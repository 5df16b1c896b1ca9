//! The door to the network: every connection between nodes is asked for and taken here. Behind it is TCP, and in tests a network in memory that delays, holds
//! and cuts (`simulated`). What goes over it, HTTP/2 with its windows, pings and timeouts, is the same on both;
//! only where many clusters are simulated most have their calls carried in pieces, which takes half of the time (`calls`).

#[cfg(test)]
pub(super) mod calls;
#[cfg(test)]
pub(crate) mod simulated;

#[cfg(test)]
pub(super) use calls::Line;
/// What calls go over to a peer.
#[cfg(not(test))]
pub(super) use tonic::transport::Channel as Line;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Endpoint;

/// The network that a node is on.
#[derive(Clone, Debug, Default)]
pub(crate) enum Net {
    /// The system's.
    #[default]
    System,
    /// A machine's place in one in memory.
    #[cfg(test)]
    Simulated(simulated::Place),
}

/// Where peers are listened for.
#[derive(Debug)]
pub(crate) enum Listener {
    System(TcpListener),
    #[cfg(test)]
    Simulated(simulated::Listener),
}

/// A connection that was taken.
#[derive(Debug)]
pub(super) enum Wire {
    System(TcpStream),
    #[cfg(test)]
    Simulated(simulated::Wire),
}

impl Net {
    /// Listens at an address, `host:port`.
    pub(crate) async fn listen(&self, address: &str) -> io::Result<Listener> {
        match self {
            Self::System => TcpListener::bind(address).await.map(Listener::System),
            #[cfg(test)]
            Self::Simulated(place) => Ok(Listener::Simulated(place.listen(address))),
        }
    }

    /// What connects when it is first used, and again whenever it must.
    pub(super) fn line(&self, endpoint: &Endpoint) -> Line {
        match self {
            #[cfg(not(test))]
            Self::System => endpoint.connect_lazy(),
            #[cfg(test)]
            Self::System => Line::Http2(endpoint.connect_lazy()),
            #[cfg(test)]
            Self::Simulated(place) => Line::new(place, endpoint),
        }
    }
}

impl Listener {
    /// The port, after 0 was resolved.
    pub(crate) fn port(&self) -> io::Result<u16> {
        match self {
            Self::System(listener) => Ok(listener.local_addr()?.port()),
            #[cfg(test)]
            Self::Simulated(listener) => Ok(listener.port()),
        }
    }

    /// The listener for calls that come in pieces, where they do.
    #[cfg(test)]
    pub(super) fn of_pieces(self) -> Result<simulated::Listener, Self> {
        match self {
            Self::Simulated(listener) if listener.calls == simulated::Calls::Pieces => Ok(listener),
            other => Err(other),
        }
    }

    /// The next connection that comes.
    pub(super) async fn accept(&mut self) -> io::Result<Wire> {
        match self {
            Self::System(listener) => {
                let (stream, _) = listener.accept().await?;
                // A socket that refuses this is closing anyway.
                let _ = stream.set_nodelay(true);
                Ok(Wire::System(stream))
            }
            #[cfg(test)]
            Self::Simulated(listener) => Ok(Wire::Simulated(listener.accept().await)),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::System(stream) => Pin::new(stream).poll_read(cx, buffer),
            #[cfg(test)]
            Self::Simulated(wire) => Pin::new(wire).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::System(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(test)]
            Self::Simulated(wire) => Pin::new(wire).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::System(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            #[cfg(test)]
            Self::Simulated(wire) => Pin::new(wire).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::System(stream) => stream.is_write_vectored(),
            #[cfg(test)]
            Self::Simulated(wire) => wire.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::System(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(test)]
            Self::Simulated(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::System(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(test)]
            Self::Simulated(wire) => Pin::new(wire).poll_shutdown(cx),
        }
    }
}
