//! One plain request: what a service can do wrong, and what we cannot do.

use tokio::sync::oneshot;

use super::*;

#[tokio::test]
async fn the_status_decides() {
    let ok = says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    passed(&ask(ok, PATIENT).await, "200 OK after ");
    let down = says("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    failed(&ask(down, PATIENT).await, "503 Service Unavailable after ");
    let own = says("HTTP/1.1 599 Whatever\r\ncontent-length: 0\r\n\r\n").await;
    failed(&ask(own, PATIENT).await, "599 after ");
}

#[tokio::test]
async fn a_404_passes_where_that_is_wanted() {
    let port = says("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    let step = |status: &[(u16, u16)]| HttpStep { status: status.to_vec(), ..local(port) };
    failed(&one(step(&[(200, 299)])).await, "404 Not Found");
    passed(&one(step(&[(200, 299), (401, 401), (404, 404)])).await, "404 Not Found");
    failed(&one(step(&[(200, 403), (405, 499)])).await, "404 Not Found");
}

#[tokio::test]
async fn who_refuses_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    failed(&ask(port, PATIENT).await, "connection refused after ");
}

#[tokio::test]
async fn who_hangs_is_down() {
    let port = server(|open| async move {
        std::future::pending::<()>().await;
        drop(open);
    })
    .await;
    failed(&ask(port, IMPATIENT).await, "no answer within 300ms");
}

#[tokio::test]
async fn who_drips_headers_is_down() {
    let port = server(|mut connection| async move {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while connection.write_all(b"x-more: and more\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    failed(&ask(port, IMPATIENT).await, "no answer within 300ms");
}

#[tokio::test]
async fn who_resets_in_the_middle_is_down() {
    let port = server(|mut connection| async move {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await;
        let _ = connection.set_zero_linger();
    })
    .await;
    failed(&ask(port, PATIENT).await, "after ");
    let port = server(|mut connection| async move {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await;
    })
    .await;
    failed(&ask(port, PATIENT).await, "its body broke off");
    let port = says("SSH-2.0-OpenSSH_9.2\r\n").await;
    failed(&ask(port, PATIENT).await, "after ");
}

#[tokio::test]
async fn who_streams_for_ever_costs_nothing() {
    let (done, ended) = oneshot::channel();
    let done = Mutex::new(Some(done));
    let port = server(move |mut connection| {
        let done = done.lock().unwrap().take();
        async move {
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let mut sent = 0_usize;
            while connection.write_all(&[b'x'; 16 * 1024]).await.is_ok() {
                sent += 16 * 1024;
            }
            let _ = done.unwrap().send(sent);
        }
    })
    .await;
    passed(&ask(port, PATIENT).await, "200 OK after ");
    // We hang up: the server's writes fail after what the sockets can hold.
    let sent = ended.await.unwrap();
    assert!(sent < 32 * 1024 * 1024, "{sent} bytes were sent");
}

#[tokio::test]
async fn who_answers_ten_megabytes_costs_64_kib() {
    let port = server(|mut connection| async move {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10485760\r\n\r\n").await;
        let _ = connection.write_all(&vec![b'x'; 10_485_760]).await;
    })
    .await;
    passed(&ask(port, PATIENT).await, "200 OK after ");
}

#[tokio::test]
async fn who_drips_a_body_for_ever_is_down() {
    let port = server(|mut connection| async move {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while connection.write_all(b".").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    failed(&ask(port, IMPATIENT).await, "its body did not end within 300ms");
}

#[tokio::test]
async fn redirects_are_followed_but_not_for_ever() {
    let follow = |port, redirects| HttpStep { redirects, ..local(port) };
    let port = says("HTTP/1.1 302 Found\r\nlocation: /health\r\ncontent-length: 0\r\n\r\n").await;
    failed(&one(follow(port, 5)).await, "redirected more than 5 times after ");
    failed(&one(follow(port, 1)).await, "redirected more than once after ");
    let there = says("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let here = server(move |mut connection| async move {
        let answer = format!(
            "HTTP/1.1 301 Moved Permanently\r\nlocation: http://127.0.0.1:{there}/\r\ncontent-length: 0\r\n\r\n"
        );
        let _ = connection.write_all(answer.as_bytes()).await;
    })
    .await;
    passed(&one(follow(here, 1)).await, "200 OK after ");
    let lost =
        says("HTTP/1.1 302 Found\r\nlocation: http://nobody.invalid/\r\ncontent-length: 0\r\n\r\n").await;
    unmeasured(&one(follow(lost, 1)).await, "where it redirects to");
    let odd = says("HTTP/1.1 302 Found\r\nlocation: file:///etc\r\ncontent-length: 0\r\n\r\n").await;
    failed(&one(follow(odd, 1)).await, "302 Found, but it leads to `file:///etc`, which is no HTTP URL");
}

#[tokio::test]
async fn a_redirect_that_is_not_followed_is_judged_by_its_status() {
    let port = says("HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n").await;
    let plain = HttpStep { redirects: 0, ..HttpStep::get(Target::Replica { port, path: "/".into() }) };
    passed(&one(plain.clone()).await, "302 Found after ");
    failed(&one(HttpStep { status: vec![(200, 299)], ..plain.clone() }).await, "302 Found after ");
    let nowhere = says("HTTP/1.1 304 Not Modified\r\n\r\n").await;
    let target = Target::Replica { port: nowhere, path: "/".into() };
    passed(&one(HttpStep { target, redirects: 3, ..plain }).await, "304 Not Modified after ");
}

#[tokio::test]
async fn who_speaks_no_tls_is_down() {
    let port = says("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    failed(&one(HttpStep::get(Target::Url(format!("https://127.0.0.1:{port}/")))).await, "after ");
}

#[tokio::test]
async fn what_we_cannot_do_is_not_the_services_fault() {
    let replica = HttpStep::get(Target::Replica { port: 80, path: "/health".into() });
    unmeasured(&make(CheckKind::Http(vec![replica]), PATIENT, None).await, "no address of its own");
    for (url, why) in [
        ("http://nobody.invalid/health", "our resolver, asked for nobody.invalid,"),
        ("ftp://127.0.0.1/", "must begin with http:// or https://"),
        ("http://:80", "cannot be used"),
        ("127.0.0.1/health", "cannot be used"),
    ] {
        unmeasured(&one(HttpStep::get(Target::Url(url.into()))).await, why);
    }
    unmeasured(&all(Vec::new()).await, "the check has no step");
}

#[tokio::test]
async fn every_question_comes_over_a_fresh_connection() {
    let (count, mut counted) = tokio::sync::mpsc::unbounded_channel();
    let port = server(move |mut connection| {
        let _ = count.send(());
        async move {
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            std::future::pending().await
        }
    })
    .await;
    let probe = probe_with(&tools(), CheckKind::Http(vec![local(port)]), PATIENT, Some("127.0.0.1"));
    for _ in 0..3 {
        passed(&probe.check().await, "200 OK");
        counted.recv().await.unwrap();
    }
}
