//! What answers of registries mean: the texts are those of Docker 20.10 and 26.1 before real and wrong registries.

use super::*;

fn error(class: ErrorClass, message: &str) -> RuntimeError {
    RuntimeError { class, message: format!("GET /distribution/x/json: {message}") }
}

#[test]
fn the_registry_is_what_stands_before_the_first_slash_if_it_looks_like_a_host() {
    for (reference, is) in [
        ("shop@sha256:00", "docker.io"),
        ("acme/shop@sha256:00", "docker.io"),
        ("ghcr.io/acme/shop@sha256:00", "ghcr.io"),
        ("localhost/shop:v1", "localhost"),
        ("localhost:5000/shop:v1@sha256:00", "localhost:5000"),
        ("10.0.0.1:5000/a/b", "10.0.0.1:5000"),
        (
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop@sha256:00",
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
        ),
    ] {
        assert_eq!(registry(reference), is, "{reference}");
    }
}

#[tokio::test]
async fn only_the_registrys_own_word_is_definite() {
    let login = credentials::tests::login("ghcr.io").await;
    let definite = |class, said: &str, login: Option<&Login>, trouble| {
        matches!(refused("ghcr.io", &error(class, said), login, trouble), Answer::NoSuch(_))
    };
    let manifest = "manifest unknown: manifest unknown (404)";
    let name = "name unknown: The repository with name 'shop' does not exist (404)";
    assert!(definite(ErrorClass::NotFound, manifest, Some(&login), None));
    assert!(definite(ErrorClass::NotFound, manifest, None, None), "a public one says so to everybody");
    assert!(definite(ErrorClass::NotFound, name, Some(&login), None));
    assert!(!definite(ErrorClass::NotFound, name, None, None), "it may hide it from strangers");
    assert!(!definite(ErrorClass::NotFound, manifest, None, Some("the helper failed")));
    assert!(!definite(ErrorClass::NotFound, "page not found (404)", Some(&login), None));
    for said in [
        "unauthorized: authentication required (401)",
        "unknown: <html>not found</html> (500)",
        "error parsing HTTP 404 response body: invalid character '<' looking for beginning of value (500)",
        "Get \"https://ghcr.io/v2/\": dial tcp: connect: connection refused (500)",
        "error unmarshalling content: invalid character 'h' looking for beginning of value (500)",
        "manifest unknown, says somebody in between (502)",
    ] {
        assert!(!definite(ErrorClass::Permanent, said, Some(&login), None), "{said}");
    }
}

#[tokio::test]
async fn what_went_wrong_is_said_with_the_next_command() {
    let login = credentials::tests::login("ghcr.io").await;
    let said = |said: &str, login: Option<&Login>, trouble| {
        explain("ghcr.io", &error(ErrorClass::Permanent, said), login, trouble)
    };
    let expired = said("unauthorized: authentication required (401)", Some(&login), None);
    assert!(
        expired.contains("may have expired") && expired.ends_with("next: docker login ghcr.io"),
        "{expired}"
    );
    assert!(expired.contains("config.json") && expired.contains("for alice"), "{expired}");
    let strange = said("Get \"https://ghcr.io/v2/\": no basic auth credentials (500)", None, None);
    assert!(
        strange.contains("there are none for it") && strange.contains("docker login ghcr.io"),
        "{strange}"
    );
    let helper = said("denied: access forbidden (403)", None, Some("docker-credential-x is not installed"));
    assert!(helper.ends_with("wants credentials: docker-credential-x is not installed"), "{helper}");
    let untrusted = said("x509: certificate signed by unknown authority (500)", None, None);
    assert!(untrusted.contains("/etc/docker/certs.d/ghcr.io/ca.crt"), "{untrusted}");
    let proxy = said("<html><body><h1>403 Forbidden</h1> (403)", Some(&login), None);
    assert!(proxy.contains("/distribution") && !proxy.contains("docker login"), "{proxy}");
    let hub = explain(credentials::HUB, &error(ErrorClass::Permanent, "unauthorized"), None, None);
    assert!(hub.contains("next: docker login, as"), "{hub}");
}

#[test]
fn an_error_in_the_report_on_a_fetch_is_one() {
    assert_eq!(reported(b"{\"status\":\"Pulling fs layer\"}\r\n"), Ok(()));
    assert_eq!(reported(b""), Ok(()));
    let failed =
        reported(b"{\"errorDetail\":{\"message\":\"unknown blob\"},\"error\":\"unknown blob\"}").unwrap_err();
    assert_eq!((failed.class, failed.message.as_str()), (ErrorClass::Permanent, "unknown blob"));
}
