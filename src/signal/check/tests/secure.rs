//! TLS: with a CA of one's own, with nobody's, and on a replica's own address.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;

use super::others::{Answer, speak_grpc};
use super::*;

/// A CA, whose certificate is in a file.
struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// What makes a connection secure with a certificate for `name`.
    fn acceptor(&self, name: &str, protocols: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A server with a certificate for `name` that answers everything with 200.
    async fn server(&self, name: &str) -> u16 {
        let acceptor = self.acceptor(name, &[]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let Ok(mut secure) = acceptor.accept(connection).await else { continue };
                let _ = secure.read(&mut [0; 4096]).await;
                let _ = secure.write_all(&ok(b"secure")).await;
                let _ = secure.shutdown().await;
            }
        });
        port
    }

    /// A gRPC server with a certificate for `name` that serves.
    async fn grpc_server(&self, name: &str) -> u16 {
        let acceptor = self.acceptor(name, &["h2"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (asked, _questions) = tokio::sync::mpsc::unbounded_channel();
            while let Ok((connection, _)) = listener.accept().await {
                let Ok(secure) = acceptor.accept(connection).await else { continue };
                tokio::spawn(speak_grpc(secure, Answer::Status(1), asked.clone()));
            }
        });
        port
    }
}

/// A gRPC check of the replica itself, or of an address with a name.
fn grpc(target: Target, tls: Tls) -> CheckKind {
    CheckKind::Grpc { target, service: "shop.Orders".into(), tls }
}

#[tokio::test]
async fn grpc_is_asked_over_tls_like_anything_else() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (anyone, port) = (Tls { insecure: true, ca_file: None }, ours.grpc_server("localhost").await);
    for scheme in ["https", "grpcs"] {
        let named = |tls| grpc(Target::Url(format!("{scheme}://localhost:{port}")), tls);
        passed(&make(named(trusting(&ours.file())), PATIENT, None).await, "SERVING after ");
        failed(&make(named(trusting(&theirs.file())), PATIENT, None).await, "certificate");
        failed(&make(named(Tls::default()), PATIENT, None).await, "certificate");
        passed(&make(named(anyone.clone()), PATIENT, None).await, "SERVING after ");
    }
    // On a replica's own address the name does not matter; whether it speaks TLS follows from what is said about it.
    let port = ours.grpc_server("orders.example.com").await;
    let own = |tls| grpc(Target::Replica { port, path: String::new() }, tls);
    passed(&make(own(trusting(&ours.file())), PATIENT, Some("127.0.0.1")).await, "SERVING after ");
    failed(&make(own(trusting(&theirs.file())), PATIENT, Some("127.0.0.1")).await, "certificate");
    passed(&make(own(anyone), PATIENT, Some("127.0.0.1")).await, "SERVING after ");
    failed(&make(own(Tls::default()), PATIENT, Some("127.0.0.1")).await, "after ");
}

fn trusting(ca: &Path) -> Tls {
    Tls { ca_file: Some(ca.to_owned()), insecure: false }
}

fn url(port: u16, tls: Tls) -> HttpStep {
    HttpStep { tls, ..HttpStep::get(Target::Url(format!("https://localhost:{port}/"))) }
}

#[tokio::test]
async fn a_url_is_trusted_by_the_system_by_a_ca_file_or_by_nobody() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let port = ours.server("localhost").await;
    passed(&one(url(port, trusting(&ours.file()))).await, "200 OK after ");
    failed(&one(url(port, trusting(&theirs.file()))).await, "certificate");
    failed(&one(url(port, Tls::default())).await, "certificate");
    passed(&one(url(port, Tls { insecure: true, ca_file: None })).await, "200 OK after ");
    let named = ours.server("shop.example.com").await;
    failed(&one(url(named, trusting(&ours.file()))).await, "certificate");
}

#[tokio::test]
async fn on_a_replicas_own_address_the_name_does_not_matter() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let port = ours.server("shop.example.com").await;
    passed(&one(HttpStep { tls: trusting(&ours.file()), ..local(port) }).await, "200 OK after ");
    failed(&one(HttpStep { tls: trusting(&theirs.file()), ..local(port) }).await, "certificate");
    passed(
        &one(HttpStep { tls: Tls { insecure: true, ca_file: None }, ..local(port) }).await,
        "200 OK after ",
    );
    // Plain HTTP redirects there; whose certificate it is does not matter either.
    let to_tls = server(move |mut connection| async move {
        let there =
            format!("HTTP/1.1 301 Moved\r\nlocation: https://127.0.0.1:{port}/\r\ncontent-length: 0\r\n\r\n");
        let _ = connection.write_all(there.as_bytes()).await;
    })
    .await;
    passed(&one(HttpStep { redirects: 1, ..local(to_tls) }).await, "200 OK after ");
}

#[tokio::test]
async fn a_ca_file_is_read_again_when_it_changed_and_named_when_it_is_none() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let port = ours.server("localhost").await;
    let file = theirs.file();
    let probe = probe_with(&tools(), CheckKind::Http(vec![url(port, trusting(&file))]), PATIENT, None);
    failed(&probe.check().await, "certificate");
    std::fs::copy(ours.file(), &file).unwrap();
    passed(&probe.check().await, "200 OK after ");
    std::fs::write(&file, "certainly not PEM\n").unwrap();
    unmeasured(&probe.check().await, &format!("the CA file {} holds no certificate", file.display()));
    std::fs::write(&file, vec![b'x'; 2 << 20]).unwrap();
    unmeasured(&probe.check().await, "more than 1048576");
    std::fs::remove_file(&file).unwrap();
    unmeasured(&probe.check().await, "cannot be used: No such file");
}
