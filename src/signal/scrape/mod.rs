//! The service's own metrics: a page in the Prometheus text format or OpenMetrics, read again and again.
//!
//! What is counted between two pages is the measurement: the first page gives none. The names are those of a preset
//! ([`presets`]) or what the operator says. Requests of machines that ask how the service is (`/metrics`, `/health...`,
//! `/ready`, `/live`) are not counted, where the metrics tell routes apart. A summary's quantiles cannot be added up, nor
//! taken apart by time: what a summary tells is how long requests took on average, by its sum and count. Protobuf and native
//! histograms are not asked for.
//!
//! A page that cannot be believed gives no number at all, but says why, and the page before it stays the one to
//! compare with: once all is well again, nothing that was counted meanwhile is lost.

mod choice;
mod increments;
pub mod presets;
pub mod queries;
pub mod text;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use reqwest::{StatusCode, Url};

use super::fetch::{Answer, Fetch, parse_url, status_line};
use super::{Probe, tls};
use crate::clock::Clock;
use crate::core::Timestamp;
use crate::core::sample::{Measurement, Requests, Signal};
use crate::core::settings::{MetricsSource, Target, Tls};
use increments::Books;
pub(super) use increments::latencies;
use text::{Page, Sought};

/// The most bytes of a page: a hundred thousand series.
const PAGE_MAX: usize = 16 * 1024 * 1024;

/// A page larger than this is read on another thread: it takes longer than others should wait.
const AT_ONCE_MAX: usize = 256 * 1024;

/// What Prometheus asks for, without protobuf.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// Makes requests of pages, wherever they come from.
#[derive(Debug)]
pub struct Reader {
    source: MetricsSource,
    sought: Arc<Sought>,
    books: Books,
}

impl Reader {
    /// A reader of the pages of `source`, which has seen none yet.
    pub fn new(source: &MetricsSource) -> Self {
        Self { source: source.clone(), sought: Arc::new(choice::sought(source)), books: Books::default() }
    }

    /// What was counted between the page before and this one, which was asked for at `at`. The first gives nothing.
    ///
    /// # Errors
    /// Why the page tells nothing, for people.
    pub fn read(
        &mut self,
        at: Timestamp,
        body: &[u8],
        content_type: &str,
    ) -> Result<Option<Requests>, String> {
        let page = text::scan(body, &self.sought, content_type)?;
        self.turn(at, page)
    }

    fn turn(&mut self, at: Timestamp, page: Page) -> Result<Option<Requests>, String> {
        let choice = choice::choose(&self.source, &page);
        self.books.turn(at, page, choice)
    }
}

/// Reads one metrics page, again and again.
#[derive(Debug)]
pub struct ScrapeProbe {
    /// Where to ask and with what, or why that is impossible.
    ask: Result<(Fetch, Url), String>,
    sought: Arc<Sought>,
    clock: Clock,
    reader: Mutex<Reader>,
}

impl ScrapeProbe {
    /// A probe for `source`; `address` is the replica's own one, which only [`Target::Replica`] needs. A replica is
    /// asked by HTTPS if anything is said about TLS, else by HTTP.
    pub fn new(source: &MetricsSource, address: Option<IpAddr>, clock: Clock) -> Self {
        let reader = Reader::new(source);
        Self {
            ask: target(source, address),
            sought: Arc::clone(&reader.sought),
            clock,
            reader: Mutex::new(reader),
        }
    }

    async fn scrape(&self) -> Result<Option<Requests>, String> {
        let (fetch, url) = self.ask.as_ref().map_err(Clone::clone)?;
        let at = self.clock.now();
        let answer =
            fetch.get(url.clone(), ACCEPT).await.map_err(|why| format!("the metrics page: {why}"))?;
        let page = self.read(answer).await?;
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).turn(at, page)
    }

    async fn read(&self, answer: Answer) -> Result<Page, String> {
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(format!(
                    "the metrics page answered {}: metrics.token_file must hold a token that it accepts",
                    status_line(answer.status)
                ));
            }
            other => {
                return Err(format!("the metrics page answered {}: is the path right?", status_line(other)));
            }
        }
        let sought = Arc::clone(&self.sought);
        let small = answer.body.len() <= AT_ONCE_MAX;
        let scan = move || text::scan(&answer.body, &sought, &answer.content_type);
        if small {
            return scan();
        }
        tokio::task::spawn_blocking(scan)
            .await
            .map_err(|_| "the metrics page could not be read".to_owned())?
    }
}

#[async_trait]
impl Probe for ScrapeProbe {
    async fn measure(&self) -> Vec<(Signal, Measurement)> {
        match self.scrape().await {
            Ok(Some(requests)) => vec![(Signal::Requests, Measurement::Requests(requests))],
            Ok(None) => Vec::new(),
            Err(why) => vec![(Signal::Requests, Measurement::Unavailable { why })],
        }
    }
}

fn target(source: &MetricsSource, address: Option<IpAddr>) -> Result<(Fetch, Url), String> {
    let (url, direct) = match &source.target {
        Target::Url(url) => (url.clone(), false),
        Target::Replica { port, path } => {
            let address = address.ok_or(
                "the container has no address of its own (network mode host or none, a network that is gone, or an engine on another machine): \
                 configure a metrics URL instead of a port",
            )?;
            let scheme = if source.tls == Tls::default() { "http" } else { "https" };
            (format!("{scheme}://{}{path}", SocketAddr::new(address, *port)), true)
        }
    };
    let url = parse_url(&url, "the metrics URL")?;
    let client = tls::client(&source.tls, direct)?;
    let (token_file, timeout) = (source.token_file.clone(), source.timeout);
    Ok((Fetch { client, token_file, timeout, limit: PAGE_MAX }, url))
}
