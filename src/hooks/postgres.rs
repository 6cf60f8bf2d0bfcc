//! PostgreSQL: the version of a schema, and a prepared file in one transaction.
//!
//! The URL is read from its file for each connection and never said. TLS is done where the URL asks for it
//! (`sslmode=require`), and then the server is verified by what the system trusts.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::script;
use crate::core::settings::Text;
use crate::core::time::human;

/// A database that does not let anybody in by then is not well.
const CONNECT: Duration = Duration::from_secs(5);
/// What a URL has.
const URL_MAX: u64 = 64 << 10;
/// Rows of the answer: a schema has one version, or one of each of its parts.
const ROWS_MAX: usize = 16;
/// A version is short.
const ANSWER_MAX: usize = 200;
/// After its statements, a commit takes as long as the disk.
const COMMIT: Duration = Duration::from_secs(60);

/// What the first column of the rows says, as text.
pub(super) async fn ask(database: &Text, query: &str, within: Duration) -> Result<String, String> {
    let asking = async {
        let client = connect(database).await?;
        let rows = client.simple_query(query).await.map_err(|e| said(&e))?;
        let mut values = Vec::new();
        for row in rows {
            if let SimpleQueryMessage::Row(row) = row
                && values.len() < ROWS_MAX
            {
                values.push(row.try_get(0).map_err(|e| said(&e))?.unwrap_or("null").to_owned());
            }
        }
        if values.is_empty() {
            return Err("the query has no rows".to_owned());
        }
        let answer = values.join(",");
        if answer.len() > ANSWER_MAX {
            return Err(format!("the query's answer has {} letters: a version has fewer", answer.len()));
        }
        Ok(answer)
    };
    let answer = tokio::time::timeout(within, asking).await;
    answer.unwrap_or_else(|_| Err(format!("the database did not answer within {}", human(within))))
}

/// Whether the database can be reached and lets us in.
pub(super) async fn lets_in(database: &Text) -> Result<(), String> {
    connect(database).await.map(drop)
}

/// Runs a file in one transaction: all of it, or nothing. Yields what there is to say about it.
pub(super) async fn run_file(database: &Text, file: &Path, within: Duration) -> Result<String, String> {
    let path = file.to_owned();
    let text = tokio::task::spawn_blocking(move || script::read(&path)).await;
    let text = text.map_err(|e| e.to_string())??;
    let taken_back = |why: String| format!("{why}; nothing of {} was done", file.display());
    let client = connect(database).await.map_err(taken_back)?;
    let working = async {
        client.batch_execute("BEGIN").await?;
        // The server ends by itself what we would not be there to end.
        let limit = format!("SET LOCAL statement_timeout = {}", within.as_millis());
        client.batch_execute(&limit).await?;
        client.batch_execute(&text).await
    };
    match tokio::time::timeout(within, working).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => return Err(taken_back(said(&e))),
        Err(_) => {
            // Without a commit, the end of the connection takes all of it back; the statement is ended first, so that it
            // is not waited for.
            let _ = tokio::time::timeout(CONNECT, cancel(&client, database)).await;
            return Err(taken_back(format!("it took longer than {}", human(within))));
        }
    }
    match tokio::time::timeout(COMMIT, client.batch_execute("COMMIT")).await {
        Ok(Ok(())) => Ok(String::new()),
        // The server says that it was not; what breaks off may have been.
        Ok(Err(e)) if e.as_db_error().is_some() => Err(taken_back(said(&e))),
        Ok(Err(e)) => Err(format!("its commit broke off ({}): it may have been done, as a whole", said(&e))),
        Err(_) => Err("its commit was not answered: it may have been done, as a whole".into()),
    }
}

async fn cancel(client: &Client, database: &Text) {
    let token = client.cancel_token();
    let Ok((_, tls)) = config(database) else { return };
    let _ = match tls {
        Some(tls) => token.cancel_query(tls).await,
        None => token.cancel_query(NoTls).await,
    };
}

/// How to connect, and by which TLS if by any.
fn config(database: &Text) -> Result<(Config, Option<Tls>), String> {
    let url = match database {
        Text::Plain(url) => url.clone(),
        Text::File(path) => {
            let failed = |e: std::io::Error| {
                format!("the file of the database's URL, {}, cannot be read: {e}", path.display())
            };
            let about = std::fs::metadata(path).map_err(failed)?;
            if !about.is_file() || about.len() > URL_MAX {
                return Err(format!("{} is no file that holds a URL", path.display()));
            }
            std::fs::read_to_string(path).map_err(failed)?
        }
    };
    // Never with the text itself, which has a password in it.
    let mut config: Config = url.trim().parse().map_err(|_| {
        "the database's URL makes no sense; postgres://user:password@host/name would".to_owned()
    })?;
    config.connect_timeout(CONNECT).application_name("backstop");
    let tls = (config.get_ssl_mode() == SslMode::Require).then(Tls::new).transpose()?;
    if tls.is_none() {
        config.ssl_mode(SslMode::Disable);
    }
    Ok((config, tls))
}

async fn connect(database: &Text) -> Result<Client, String> {
    let (config, tls) = config(database)?;
    let connecting = async {
        match tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls).await?;
                tokio::spawn(connection);
                Ok(client)
            }
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                tokio::spawn(connection);
                Ok(client)
            }
        }
    };
    let connected = tokio::time::timeout(CONNECT, connecting).await;
    connected
        .map_err(|_| format!("the database did not let us in within {}", human(CONNECT)))?
        .map_err(|e: tokio_postgres::Error| format!("the database cannot be reached: {}", said(&e)))
}

/// The server's own words, else the innermost cause.
fn said(error: &tokio_postgres::Error) -> String {
    if let Some(theirs) = error.as_db_error() {
        let detail = theirs.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        return format!("{}{detail} [{}]", theirs.message(), theirs.code().code());
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// TLS that the system's certificates vouch for.
#[derive(Clone)]
struct Tls(tokio_rustls::TlsConnector);

impl Tls {
    fn new() -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_platform_verifier())
            .map_err(|e| format!("the system's certificates cannot be used: {e}"))?;
        Ok(Self(tokio_rustls::TlsConnector::from(Arc::new(config.with_no_client_auth()))))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Stream<S>;
    type TlsConnect = Named;
    type Error = std::io::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Named, std::io::Error> {
        let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        Ok(Named(self.0.clone(), name))
    }
}

struct Named(tokio_rustls::TlsConnector, rustls::pki_types::ServerName<'static>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Named {
    type Stream = Stream<S>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream<S>, std::io::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.0.connect(self.1, stream).await.map(Stream) })
    }
}

struct Stream<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
