//! Whether an engine is on this machine: only then its containers' addresses and its projects' files are ours.

use super::host::{is_loopback, own_name};
use super::{Engine, ErrorClass, Host, RuntimeError};

impl Engine {
    /// Whether it is on another machine: its containers' addresses and its projects' files are not ours. Plain TCP may lead
    /// to a socket proxy beside us, or anywhere: until [`Self::find_out_where`] knows, it counts as elsewhere.
    pub(crate) fn is_remote(&self) -> bool {
        match &self.host {
            Host::Unix(_) => false,
            Host::Ssh(..) => true,
            Host::Tcp(address) => {
                self.tls.is_some() || !(is_loopback(address) || self.here.get() == Some(&true))
            }
        }
    }

    /// Finds out, once, whether an engine behind plain TCP is on this machine: it runs our own container (`own`), or its
    /// machine has the name of ours.
    pub(crate) async fn find_out_where(&self, own: Option<&str>) -> Result<(), RuntimeError> {
        let Host::Tcp(address) = &self.host else { return Ok(()) };
        if self.tls.is_some() || is_loopback(address) {
            return Ok(());
        }
        let asking = async {
            if let Some(own) = own {
                match self.json(&format!("/containers/{own}/json")).await {
                    Ok(_) => return Ok(true),
                    Err(error) if error.class == ErrorClass::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            let info = self.json("/info").await?;
            let here = info["Name"].as_str().is_some_and(|name| !name.is_empty() && name == own_name());
            if !here {
                tracing::info!(
                    "the engine at {} is on another machine ({}): project files are left alone, and checks need a URL",
                    self.host(),
                    info["Name"].as_str().unwrap_or_default()
                );
            }
            Ok(here)
        };
        self.here.get_or_try_init(|| asking).await.map(drop)
    }
}
