//! Requests with everything that can be said of them, one after the other.

use super::*;

fn wants(port: u16, path: &str, value: &str) -> HttpStep {
    HttpStep { json: vec![(path.into(), value.into())], ..local(port) }
}

fn plain(pairs: &[(&str, &str)]) -> Vec<(String, Text)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Text::Plain((*value).to_owned()))).collect()
}

fn captures(name: &str, path: &str) -> Vec<(String, String)> {
    vec![(name.into(), path.into())]
}

#[tokio::test]
async fn a_text_must_be_in_the_body() {
    let port = serves("migrations: done\n").await;
    let wants = |text: &str| HttpStep { contains: Some(text.into()), ..local(port) };
    passed(&one(wants("migrations: done")).await, "200 OK after ");
    failed(
        &one(wants("migrations: pending")).await,
        ", but its body does not contain \"migrations: pending\"",
    );
    let long = serves([vec![b'x'; 1 << 20], b"at last".to_vec()].concat()).await;
    let step = HttpStep { contains: Some("at last".into()), ..local(long) };
    failed(&one(step).await, "but the first 256 KiB of its body do not contain \"at last\"");
    let early = serves([b"at once".to_vec(), vec![0xff; 1 << 20]].concat()).await;
    passed(&one(HttpStep { contains: Some("at once".into()), ..local(early) }).await, "200 OK");
}

#[tokio::test]
async fn values_of_the_json_body_are_compared_as_json() {
    let port =
        serves(r#"{"version": "2", "checks": [{"status": "UP"}], "migrations_current": true, "n": 2}"#).await;
    for (path, value) in [
        (".version", "\"2\""),
        (".checks[0].status", "\"UP\""),
        ("migrations_current", "true"),
        (".n", "2.0"),
        (".checks", r#"[{"status":"UP"}]"#),
    ] {
        passed(&one(wants(port, path, value)).await, "200 OK after ");
    }
    for (path, value, but) in [
        (".version", "2", "but .version is the string \"2\", not the number 2"),
        (".migrations_current", "\"true\"", "but .migrations_current is true, not the string \"true\""),
        (".checks[1].status", "\"UP\"", "but there is no .checks[1].status: .checks is a list of 1"),
        (".checks[0]", "null", "but .checks[0] is an object with the keys status, not null"),
    ] {
        failed(&one(wants(port, path, value)).await, but);
    }
    unmeasured(&one(wants(port, ".version", "UP")).await, "cannot be compared with `UP`, which is no JSON");
    unmeasured(&one(wants(port, ".a[", "1")).await, "the JSON path `.a[`");
}

#[tokio::test]
async fn what_is_no_json_is_told_by_what_it_is() {
    for (body, but) in [
        (&b"<html><body>404</body>"[..], "its body is not JSON but looks like HTML"),
        (b"", "its body is empty, not JSON"),
        (b"{\"version\": ", "its body is not JSON: EOF while parsing"),
        (b"{\"version\": 1} trailing", "its body is not JSON: trailing characters"),
        (b"\xff\xfe\x00", "its body is not JSON: expected value"),
        (b"{\"other\": 1}", "there is no .version: the body is an object with the keys other"),
    ] {
        failed(&one(wants(serves(body).await, ".version", "1")).await, but);
    }
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    failed(&one(wants(serves(deep).await, ".version", "1")).await, "its body is not JSON: recursion limit");
    let huge = format!("{{\"version\": 1, \"x\": \"{}\"}}", "x".repeat(1 << 20));
    failed(&one(wants(serves(huge).await, ".version", "1")).await, "its body is longer than 256 KiB");
}

#[tokio::test]
async fn everything_that_is_configured_is_sent() {
    let (port, mut asked) = answers(|_| "HTTP/1.1 204 No Content\r\n\r\n".into()).await;
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    let step = HttpStep {
        method: "PUT".into(),
        headers: vec![
            ("X-One".into(), Text::Plain("1".into())),
            ("Authorization".into(), Text::File(token.clone())),
        ],
        body: Some(Text::Plain(r#"{"a": 1}"#.into())),
        ..get(port, "/me?x=1")
    };
    let probe = probe_with(&tools(), CheckKind::Http(vec![step]), PATIENT, Some("127.0.0.1"));
    unmeasured(&probe.check().await, &format!("cannot read {}: No such file", token.display()));
    for secret in ["Bearer one", "Bearer two"] {
        std::fs::write(&token, format!("{secret}\n")).unwrap();
        passed(&probe.check().await, "204 No Content after ");
        let request = asked.recv().await.unwrap();
        assert!(request.starts_with("PUT /me?x=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("authorization: {secret}\r\n")), "{request}");
        assert!(request.contains("x-one: 1\r\n") && request.contains("content-type: application/json\r\n"));
        assert!(request.contains("user-agent: backstop/") && request.ends_with("\r\n\r\n{\"a\": 1}"));
    }
    std::fs::write(&token, "Bearer one\r\nX-Evil: 1").unwrap();
    let measured = probe.check().await;
    unmeasured(&measured, "the header authorization would have a line break");
    assert!(!format!("{measured:?} {probe:?}").contains("Bearer"), "a secret is never told");
}

#[tokio::test]
async fn a_form_is_a_form() {
    let (port, mut asked) = answers(|_| "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()).await;
    let body = Some(Text::Plain("user=me&password=x".into()));
    passed(&one(HttpStep { method: "POST".into(), body: body.clone(), ..local(port) }).await, "200 OK");
    assert!(asked.recv().await.unwrap().contains("content-type: application/x-www-form-urlencoded\r\n"));
    let headers = plain(&[("Content-Type", "text/plain")]);
    passed(&one(HttpStep { method: "POST".into(), body, headers, ..local(port) }).await, "200 OK");
    let request = asked.recv().await.unwrap();
    assert!(request.contains("content-type: text/plain\r\n") && !request.contains("urlencoded"), "{request}");
}

/// Logs in with `answer`, and then asks for `/users/{{id}}` with the token.
async fn login(answer: &'static str) -> (Measurement, Vec<String>) {
    let (port, mut asked) = answers(move |request| {
        let body = if request.starts_with("POST /login ") { answer } else { "{\"name\": \"me\"}" };
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    })
    .await;
    let login = HttpStep {
        method: "POST".into(),
        body: Some(Text::Plain("user=me".into())),
        capture: [captures("token", ".token"), captures("id", ".user.id")].concat(),
        ..get(port, "/login")
    };
    let me = HttpStep {
        method: "POST".into(),
        headers: plain(&[("Authorization", "Bearer {{token}}")]),
        body: Some(Text::Plain(r#"{"token": "{{token}}", "id": {{ id }}}"#.into())),
        json: vec![(".name".into(), "\"me\"".into())],
        ..get(port, "/users/{{id}}?token={{token}}")
    };
    let measured = all(vec![login, me]).await;
    let mut requests = Vec::new();
    while let Ok(request) = asked.try_recv() {
        requests.push(request);
    }
    (measured, requests)
}

#[tokio::test]
async fn what_one_step_finds_the_next_one_uses() {
    let (measured, requests) = login(r#"{"token": "abc", "user": {"id": 7}}"#).await;
    passed(&measured, "all 2 steps passed, the last with 200 OK after ");
    assert!(requests[1].starts_with("POST /users/7?token=abc HTTP/1.1\r\n"), "{}", requests[1]);
    assert!(requests[1].contains("authorization: Bearer abc\r\n"));
    assert!(requests[1].ends_with(r#"{"token": "abc", "id": 7}"#));
}

#[tokio::test]
async fn a_value_cannot_break_out_of_its_place() {
    let (measured, requests) =
        login(r#"{"token": "a&b=c#\"}, {\"admin\": true}", "user": {"id": "../admin?x=1 HTTP/1.1"}}"#).await;
    passed(&measured, "all 2 steps passed");
    let first = requests[1].lines().next().unwrap();
    let url =
        "/users/..%2Fadmin%3Fx%3D1%20HTTP%2F1.1?token=a%26b%3Dc%23%22%7D%2C%20%7B%22admin%22%3A%20true%7D";
    assert_eq!(first, format!("POST {url} HTTP/1.1"));
    let body = requests[1].rsplit("\r\n\r\n").next().unwrap();
    assert!(body.starts_with(r#"{"token": "a&b=c#\"}, {\"admin\": true}", "id": "#), "{body}");

    let (measured, requests) = login(r#"{"token": "a\r\nX-Evil: 1", "user": {"id": 1}}"#).await;
    failed(&measured, "step 2 of 2 (POST /users/{{id}}): the header authorization would have a line break");
    assert_eq!(requests.len(), 1, "nothing was sent");
    let (measured, requests) = login(r#"{"token": "a", "user": {"id": ".."}}"#).await;
    failed(
        &measured,
        "step 2 of 2 (POST /users/{{id}}): a value that an earlier step found makes the path climb",
    );
    assert_eq!(requests.len(), 1, "nothing was sent");
}

#[tokio::test]
async fn a_value_that_is_not_there_or_no_value_fails_its_step() {
    for (answer, why) in [
        ("{}", "there is no .token to carry along as token"),
        (r#"{"token": null}"#, ".token is null, which cannot be carried along"),
        (r#"{"token": ["a"]}"#, ".token is a list of 1, which cannot be carried along"),
    ] {
        let (measured, _) = login(answer).await;
        failed(&measured, "step 1 of 2 (POST /login): 200 OK after ");
        failed(&measured, why);
    }
    let long: &'static str = format!(r#"{{"token": "{}"}}"#, "x".repeat(20_000)).leak();
    failed(&login(long).await.0, ".token is longer than 16 KiB");
}

#[tokio::test]
async fn the_step_that_fails_is_named_and_the_later_ones_are_not_made() {
    let (port, mut asked) = answers(|request| {
        let status = if request.starts_with("GET /me") { "401 Unauthorized" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")
    })
    .await;
    let steps = vec![get(port, "/"), get(port, "/me?token=secret"), get(port, "/never")];
    let measured = all(steps).await;
    failed(&measured, "step 2 of 3 (GET /me): 401 Unauthorized after ");
    let made: BTreeSet<_> =
        [asked.recv().await, asked.recv().await].into_iter().flatten().map(|r| r[..8].to_owned()).collect();
    assert_eq!(made.into_iter().collect::<Vec<_>>(), ["GET / HT", "GET /me?"]);
    assert!(asked.try_recv().is_err());
    let closed = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port() };
    failed(
        &all(vec![get(port, "/"), get(closed, "/x")]).await,
        "step 2 of 2 (GET /x): connection refused after ",
    );
}

#[tokio::test]
async fn one_time_is_for_all_steps() {
    let slow = server(|mut connection| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let steps = CheckKind::Http(vec![get(slow, "/a"), get(slow, "/b")]);
    let measured = make(steps, Duration::from_millis(300), Some("127.0.0.1")).await;
    failed(&measured, "step 2 of 2 (GET /b): no answer within 300ms");
    let hangs = server(|mut connection| async move {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
        std::future::pending::<()>().await;
    })
    .await;
    let steps = CheckKind::Http(vec![get(hangs, "/a"), get(slow, "/b")]);
    let measured = make(steps, IMPATIENT, Some("127.0.0.1")).await;
    failed(&measured, "step 1 of 2 (GET /a): 200 OK after ");
    failed(&measured, "but its body did not end within 300ms");
}

#[tokio::test]
async fn settings_that_cannot_work_are_told_and_blamed_on_nobody() {
    let port = serves("{}").await;
    for (steps, why) in [
        (vec![get(port, "/{{id}}")], "no step before it captures `id`"),
        (
            vec![get(port, "/"), HttpStep { headers: plain(&[("X", "{{t}}")]), ..local(port) }],
            "step 2: no step before it captures `t`, which it uses as {{t}}",
        ),
        (
            vec![
                HttpStep { capture: captures("host", ".host"), ..local(port) },
                HttpStep::get(Target::Url("http://{{host}}/".into())),
            ],
            "a captured value may stand in its path and query only",
        ),
        (vec![HttpStep { method: "NO WAY".into(), ..local(port) }], "`NO WAY` is no HTTP method"),
        (vec![HttpStep { headers: plain(&[("a b", "1")]), ..local(port) }], "`a b` is no name of a header"),
    ] {
        unmeasured(&all(steps).await, why);
    }
}

#[tokio::test]
async fn a_redirect_takes_no_secret_to_somebody_else() {
    let (elsewhere, mut there) = answers(|_| "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()).await;
    let (port, _asked) = answers(move |_| {
        format!("HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:{elsewhere}/\r\ncontent-length: 0\r\n\r\n")
    })
    .await;
    let step = HttpStep {
        method: "POST".into(),
        headers: plain(&[("X-Api-Key", "secret")]),
        body: Some(Text::Plain("secret".into())),
        redirects: 1,
        ..local(port)
    };
    passed(&one(step).await, "200 OK");
    let request = there.recv().await.unwrap();
    assert!(request.starts_with("POST / ") && !request.contains("secret"), "{request}");
}
