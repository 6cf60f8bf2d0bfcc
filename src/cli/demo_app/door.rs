//! Where clients come in, and how it is closed: nobody who has come in is turned away.

use std::io;
use std::net::SocketAddr;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A listener that, once told to close, takes in whoever the kernel has connected already, and then nobody: they are
/// refused, and go to a replica. axum's own graceful shutdown hangs up on connections whose request is still on its way.
#[derive(Debug)]
pub(super) struct Door {
    listener: Option<TcpListener>,
    closing: CancellationToken,
}

impl Door {
    pub(super) fn new(listener: TcpListener, closing: CancellationToken) -> Self {
        Self { listener: Some(listener), closing }
    }
}

impl Listener for Door {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        if let Some(listener) = &mut self.listener {
            tokio::select! {
                // Whoever waits comes first.
                biased;
                client = Listener::accept(listener) => return client,
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
        tokio::spawn(axum::serve(Door::new(listener, closing), app).into_future());
        while TcpStream::connect(address).await.is_ok() {}
        early.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        early.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("served"), "{answer}");
    }
}
