//! Where clients come in, and how it is closed: nobody who has come in is turned away.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A listener that, once told to close, takes in whoever the kernel has connected already, and then nobody: they are
/// refused, and go to a replica. axum's own graceful shutdown hangs up on connections whose request is still on its way.
#[derive(Debug)]
pub(super) struct Door {
    listener: Option<TcpListener>,
    closing: CancellationToken,
    guests: Guests,
}

impl Door {
    pub(super) fn new(listener: TcpListener, closing: CancellationToken, guests: Guests) -> Self {
        Self { listener: Some(listener), closing, guests }
    }
}

/// How many have come in and got no answer yet. Who has got one and stays for the next request is waited for by nobody.
#[derive(Clone, Debug, Default)]
pub(super) struct Guests(watch::Sender<usize>);

impl Guests {
    fn welcome(&self) -> Guest {
        self.0.send_modify(|count| *count += 1);
        Guest(self.clone())
    }

    pub(super) async fn all_answered(&self) {
        // An error would mean that the sender is gone, and it is held here.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// Counts as one for as long as it is there.
#[derive(Debug)]
struct Guest(Guests);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// A connection that knows whether anything was answered on it.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    unanswered: Option<Guest>,
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        self.unanswered = None;
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, pieces));
        self.unanswered = None;
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Listener for Door {
    type Io = Client;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        if let Some(listener) = &mut self.listener {
            tokio::select! {
                // Whoever waits comes first.
                biased;
                (stream, address) = Listener::accept(listener) => {
                    return (Client { stream, unanswered: Some(self.guests.welcome()) }, address);
                }
                () = self.closing.cancelled() => {}
            }
        }
        self.listener = None;
        std::future::pending().await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener
            .as_ref()
            .map_or_else(|| Err(io::ErrorKind::NotConnected.into()), TcpListener::local_addr)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_is_in_when_it_closes_is_answered_and_others_are_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let closing = CancellationToken::new();
        let mut early = TcpStream::connect(address).await.unwrap();
        closing.cancel();
        let app = Router::new().route("/", get(|| async { "served" }));
        let guests = Guests::default();
        tokio::spawn(axum::serve(Door::new(listener, closing, guests.clone()), app).into_future());
        while TcpStream::connect(address).await.is_ok() {}
        assert!(guests.all_answered().now_or_never().is_none(), "one is in, and has asked for nothing yet");
        early.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        early.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("served"), "{answer}");
        guests.all_answered().await;
    }
}
