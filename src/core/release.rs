//! Names and releases: what runs, and how it is told from what ran before.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps `text` as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// The name under which a service is watched; stable across its releases.
    ServiceName
}
text_id! {
    /// One running copy of a service: on Docker, the container id.
    ReplicaId
}
text_id! {
    /// The engine's image id, `sha256:...`: valid on one engine and image store only.
    ImageId
}
text_id! {
    /// Twelve hexadecimal digits over image id and configuration fingerprint: the identity of a [`Release`].
    ReleaseId
}
text_id! {
    /// One question that people are asked; unique on this host.
    ApprovalId
}
text_id! {
    /// One mitigation; unique on this host.
    MitigationId
}
text_id! {
    /// One rollback: sortable by time, unique on this host, and part of the temporary container names.
    RollbackId
}

/// What runs: an image under a configuration that a deployer chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Identity: equal exactly when image id and fingerprint are equal.
    pub id: ReleaseId,
    /// The image's id on this engine.
    pub image: ImageId,
    /// The image reference as the deployer typed it, `shop:v2`. It may point elsewhere by now.
    pub reference: String,
    /// Registry digests of the image, `repo@sha256:...`: what a missing image is fetched by.
    pub digests: Vec<String>,
    /// SHA-256 over the configuration that the deployer chose, in hexadecimal.
    pub fingerprint: String,
    /// Who made it: the `org.opencontainers.image.version` or `.revision` label, if there is one.
    pub version: Option<String>,
}

impl Release {
    /// Whether `wanted`, as an operator typed it, means this release: its id or at least four digits from its
    /// beginning, its reference, the tag of it, or its version.
    pub fn answers_to(&self, wanted: &str) -> bool {
        self.reference == wanted
            || self.version.as_deref() == Some(wanted)
            || (wanted.len() >= 4 && self.id.as_str().starts_with(wanted))
            || self.reference.rsplit_once(':').is_some_and(|(_, tag)| tag == wanted)
    }
}

/// Repository and tag of a reference, `registry.example.com:5000/shop` and `v2`; what comes after an `@` is neither.
pub fn split(reference: &str) -> (&str, Option<&str>) {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once(':') {
        // The colon of a registry's port comes before a slash.
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        Some(_) | None => (name, None),
    }
}

impl fmt::Display for Release {
    /// `shop:v2 [3fa9c1d2e4b7]`: what was typed, and the identity that commands accept.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.reference, self.id)
    }
}
