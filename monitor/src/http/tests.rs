use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::*;
use crate::files::MonitorFile;

/// A server with files, on a free port.
fn server(access: Access) -> (Server, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    MonitorFile::Page.write(directory.path(), "<p>page</p>").unwrap();
    MonitorFile::Metrics.write(directory.path(), "a 1\n").unwrap();
    MonitorFile::Snapshot.write(directory.path(), "{}").unwrap();
    std::fs::write(directory.path().join("secret"), "secret").unwrap();
    let rules = Rules { access, directory: directory.path().to_owned(), age_max: Duration::from_secs(100) };
    (Server::start(address("127.0.0.1:0").unwrap(), rules).unwrap(), directory)
}

fn send(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(server: &Server, path: &str, headers: &str) -> String {
    send(server, &format!("GET {path} HTTP/1.1\r\nHost: localhost:1\r\n{headers}\r\n"))
}

fn token_file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

#[test]
fn files_have_fixed_paths_and_nothing_else_is_served() {
    let (server, _directory) = server(Access::default());
    assert!(get(&server, "/", "").ends_with("\r\n\r\n<p>page</p>"));
    assert!(get(&server, "/api/v1/status", "").ends_with("\r\n\r\n{}"));
    assert!(get(&server, "/healthz", "").ends_with("\r\n\r\nok\n"));
    assert!(get(&server, "/?path=/secret", "").ends_with("<p>page</p>"));
    let others =
        ["/secret", "/../secret", "//secret", "/api/v1/../../secret", "/%2e%2e/secret", "/index.html", "/metrics/"];
    for path in others {
        let answer = get(&server, path, "");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    // What is not written yet
    assert!(get(&server, "/api/v1/jobs", "").starts_with("HTTP/1.1 503 "));
}

#[test]
fn metrics_end_with_their_age_and_have_the_format_that_the_client_asks_for() {
    let (server, _directory) = server(Access::default());
    let answer = get(&server, "/metrics", "");
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    let wanted = "\r\n\r\na 1\n# HELP rbr_collect_age_seconds Seconds since the other metrics were collected.\n\
                  # TYPE rbr_collect_age_seconds gauge\nrbr_collect_age_seconds 0\n# EOF\n";
    assert!(answer.ends_with(wanted), "{answer}");
    let answer = get(&server, "/metrics", "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n");
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{answer}"
    );
}

#[test]
fn every_answer_forbids_scripts_frames_and_storing() {
    let (server, _directory) = server(Access::default());
    for path in ["/", "/metrics", "/nowhere", "/healthz"] {
        let answer = get(&server, path, "");
        for header in [
            "content-security-policy: default-src 'none'; style-src 'sha256-",
            "x-content-type-options: nosniff",
            "x-frame-options: DENY",
            "cache-control: no-store",
            "referrer-policy: no-referrer",
        ] {
            assert!(answer.contains(header), "{header}: {answer}");
        }
    }
}

#[test]
fn only_get_and_head_are_allowed_and_head_has_no_body() {
    let (server, _directory) = server(Access::default());
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let answer = send(&server, &format!("{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD\r\n"), "{method}: {answer}");
    }
    let answer = send(&server, "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(answer.contains("content-length: 11\r\n"), "{answer}");
}

#[test]
fn token_is_required_except_for_the_health_check() {
    let (_folder, path) = token_file("0123456789abcdef0123\n");
    let (server, _directory) = server(Access::default().with_token_file(&path).unwrap());
    for header in [
        "",
        "Authorization: Bearer 0123456789abcdef012\r\n",
        "Authorization: Bearer 0123456789abcdef01234\r\n",
        "Authorization: Basic 0123456789abcdef0123\r\n",
        "Authorization: 0123456789abcdef0123\r\n",
        "Authorization: Bearer \r\n",
    ] {
        for path in ["/", "/metrics", "/api/v1/status", "/nowhere"] {
            let answer = get(&server, path, header);
            assert!(
                answer.starts_with("HTTP/1.1 401 ") && answer.contains("www-authenticate: Bearer"),
                "{header}{answer}"
            );
        }
    }
    assert!(get(&server, "/", "authorization: bearer 0123456789abcdef0123\r\n").starts_with("HTTP/1.1 200 "));
    assert!(get(&server, "/healthz", "").starts_with("HTTP/1.1 200 "));
    let strange =
        send(&server, "GET / HTTP/1.1\r\nHost: example.com\r\nAuthorization: Bearer 0123456789abcdef0123\r\n\r\n");
    assert!(strange.starts_with("HTTP/1.1 200 "), "{strange}");
}

#[test]
fn token_that_can_be_guessed_or_sent_by_no_client_is_refused() {
    for text in ["", "short", "0123456789abcde", "0123456789 abcdef0123", &"a".repeat(5000), "0123456789abcdefä"] {
        let (_folder, path) = token_file(text);
        assert!(Access::default().with_token_file(&path).is_err(), "{text}");
    }
    let error = Access::default().with_token_file("/nonexistent".as_ref()).err().unwrap();
    assert!(error.to_string().contains("'/nonexistent'"), "{error}");
}

#[test]
fn address_that_others_reach_needs_a_token_or_certificates() {
    let (_folder, path) = token_file("0123456789abcdef0123");
    let open = |text: &str| Access::default().check(address(text).unwrap());
    for text in ["127.0.0.1:1", "[::1]:1", "127.9.9.9:1", "localhost:1"] {
        open(text).unwrap();
    }
    for text in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[2001:db8::1]:1"] {
        let error = open(text).unwrap_err();
        assert_eq!(error.code, ErrorCode::OptionInvalid);
        assert!(error.hints.join("").contains("monitor-token-file"), "{error:?}");
        let token = Access::default().with_token_file(&path).unwrap();
        token.check(address(text).unwrap()).unwrap();
        assert!(token.is_plain(address(text).unwrap()));
    }
    for text in ["", "9854", "localhost", "127.0.0.1:99999", ":9854", "a b:1", "db1.example.com:1"] {
        assert!(address(text).is_err(), "{text}");
    }
}

#[test]
fn page_of_another_site_that_points_its_name_here_gets_nothing() {
    let (server, _directory) = server(Access::default());
    for host in
        ["evil.example", "evil.example:9854", "localhost.evil.example:1", "127.0.0.1.evil.example", "[evil]:1", ""]
    {
        for path in ["/", "/healthz"] {
            let answer = send(&server, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert!(answer.starts_with("HTTP/1.1 421 "), "{host}: {answer}");
        }
    }
    for host in ["127.0.0.1", "127.0.0.1:9854", "[::1]:9854", "LOCALHOST:1", "192.0.2.7:80"] {
        let answer = send(&server, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
}

#[test]
fn request_that_is_too_large_or_no_request_is_refused() {
    let (server, _directory) = server(Access::default());
    let long = get(&server, &format!("/{}", "a".repeat(100_000)), "");
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 4"), "{long}");
    let many: String = (0..200).map(|number| format!("X-{number}: 1\r\n")).collect();
    let many = get(&server, "/", &many);
    assert!(many.is_empty() || many.starts_with("HTTP/1.1 4"), "{many}");
    assert!(!send(&server, "\u{0}\u{1}\u{2}\r\n\r\n").contains("200 OK"));
    assert!(get(&server, "/", "").starts_with("HTTP/1.1 200 "));
}

#[test]
fn clients_that_say_nothing_do_not_keep_others_out_for_long() {
    let (server, _directory) = server(Access::default());
    let silent: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(200));
    let begin = Instant::now();
    let answer = get(&server, "/", "");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(begin.elapsed() < HEAD_TIME_MAX + Duration::from_secs(5), "{:?}", begin.elapsed());
    drop(silent);
}

#[test]
fn old_files_are_not_shown_as_if_they_were_true() {
    let (server, directory) = server(Access::default());
    let old = std::time::SystemTime::now() - Duration::from_secs(500);
    let file = std::fs::File::options().write(true).open(MonitorFile::Metrics.path(directory.path())).unwrap();
    file.set_modified(old).unwrap();
    for path in ["/", "/healthz", "/api/v1/status"] {
        let answer = get(&server, path, "");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("seconds old"), "{path}: {answer}");
        assert!(!answer.contains("page</p>") && !answer.contains("{}"), "{path}: {answer}");
    }
    let metrics = get(&server, "/metrics", "");
    assert!(metrics.contains("\nrbr_collect_age_seconds 50"), "{metrics}");
    assert!(metrics.contains("\npgbackrest_exporter_status{stanza=\"all-stanzas\"} 0\n"), "{metrics}");
    assert!(!metrics.contains("\na 1\n"), "{metrics}");
}

#[test]
fn rules_can_change_while_the_server_runs_and_its_end_frees_the_port() {
    let (server, directory) = server(Access::default());
    let (_folder, path) = token_file("0123456789abcdef0123");
    let access = Access::default().with_token_file(&path).unwrap();
    server.set_rules(Rules { access, directory: directory.path().to_owned(), age_max: Duration::from_secs(1) });
    assert!(get(&server, "/", "").starts_with("HTTP/1.1 401 "));
    let address = server.address();
    drop(server);
    assert!(TcpListener::bind(address).is_ok());
}
