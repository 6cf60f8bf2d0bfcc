//! A certificate authority that nobody has heard of.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Else all certificates would have one name, and curl would take a server's for self-signed.
        params.distinguished_name.push(DnType::CommonName, "the CA of the tests");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// What whoever trusts it has to have.
    pub(crate) fn write(&self, path: &Path) {
        fs::write(path, self.0.pem()).unwrap();
    }

    /// A certificate for a server with this name or address.
    pub(crate) fn server(&self, name: &str, cert: &Path, key: &Path) {
        self.sign(name, ExtendedKeyUsagePurpose::ServerAuth, cert, key);
    }

    /// A certificate for whoever calls a server.
    pub(crate) fn client(&self, cert: &Path, key: &Path) {
        self.sign("backstop", ExtendedKeyUsagePurpose::ClientAuth, cert, key);
    }

    fn sign(&self, name: &str, purpose: ExtendedKeyUsagePurpose, cert: &Path, key: &Path) {
        let own = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        fs::write(cert, params.signed_by(&own, &self.0).unwrap().pem()).unwrap();
        fs::write(key, own.serialize_pem()).unwrap();
    }
}
