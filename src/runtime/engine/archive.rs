//! Files in and out of containers, as tar archives.

use futures_util::StreamExt;

use super::{CALL, Engine, causes, permanent, receive, refused, sort};
use crate::runtime::RuntimeError;

impl Engine {
    /// A file or folder of a container, as a tar archive of at most `most` bytes.
    pub(crate) async fn archive(
        &self,
        container: &str,
        path: &str,
        most: usize,
    ) -> Result<Vec<u8>, RuntimeError> {
        let what = format!("reading {path} in {container}");
        let session = self.session().await?;
        let url = self.url(&format!("/v1.{}/containers/{container}/archive", session.minor));
        let request = self.http.get(url).query(&[("path", path)]);
        let read = async {
            let response = request.send().await.map_err(|e| self.away(&format!("{what}: {}", causes(&e))))?;
            let (status, mut bytes) = (response.status().as_u16(), Vec::new());
            let mut stream = response.bytes_stream();
            while let Some(part) = stream.next().await {
                bytes.extend(part.map_err(|e| self.away(&format!("{what}: {}", causes(&e))))?);
                if bytes.len() > most {
                    return Err(permanent(format!("{what}: it is larger than {} KiB", most >> 10)));
                }
            }
            if status < 400 { Ok(bytes) } else { Err(refused(&what, status, &bytes)) }
        };
        let late = |_| self.away(&format!("{what}: no answer within {} s", CALL.as_secs()));
        tokio::time::timeout(CALL, read).await.unwrap_or_else(|e| Err(late(e)))
    }

    /// Unpacks a tar archive at the root of a container.
    pub(crate) async fn unpack(&self, container: &str, tar: Vec<u8>) -> Result<(), RuntimeError> {
        let what = format!("copying files into {container}");
        let session = self.session().await?;
        let url = self.url(&format!("/v1.{}/containers/{container}/archive", session.minor));
        let request =
            self.http.put(url).query(&[("path", "/")]).header("content-type", "application/x-tar").body(tar);
        let answer = tokio::time::timeout(CALL, receive(request)).await;
        let (status, bytes) = answer
            .map_err(|_| self.away(&format!("{what}: no answer within {} s", CALL.as_secs())))?
            .map_err(|why| self.away(&format!("{what}: {why}")))?;
        sort(&what, status, &bytes).map(drop)
    }
}
