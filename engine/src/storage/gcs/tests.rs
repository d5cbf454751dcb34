use std::io::Read;
use std::time::Duration;

use super::super::http::mock::{answer, answer_with, server};
use super::*;
use crate::storage::{ReadRange, RepoPath, RepoStorage, WriteOptions, get, put};

fn settings(endpoint: &str) -> GcsSettings {
    GcsSettings {
        repo_path: "/repo".into(),
        bucket: "bucket".into(),
        endpoint: endpoint.into(),
        credentials: GcsCredentials::Token("Bearer secret-token".into()),
        user_project: None,
        tags: Vec::new(),
        part_size_bytes: 4 << 20,
        target_time: None,
        http: HttpSettings {
            host: None,
            verify_tls: true,
            ca_file: None,
            ca_path: None,
            io_timeout: Duration::from_secs(10),
        },
        read_ahead: ReadAhead::NEAR,
    }
}

/// A listing of nothing.
const EMPTY: &str = r#"{"kind":"storage#objects"}"#;

/// Returns a server's description of an object with these bytes.
fn description(name: &str, data: &[u8]) -> String {
    let crc = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, crc32c::crc32c(data).to_be_bytes());
    format!(r#"{{"name":"repo/{name}","crc32c":"{crc}","size":"{}"}}"#, data.len())
}

fn at(path: &str) -> RepoPath {
    RepoPath::new(path).unwrap()
}

#[test]
fn small_file_is_one_request_with_tags_project_and_checksum() {
    let (address, requests) = server(vec![answer(&description("a/b c", b"data"))]);
    let storage = open(&GcsSettings {
        user_project: Some("my project".into()),
        tags: vec![("a b".into(), "c\"d".into())],
        ..settings(&address)
    });
    put(&storage.unwrap(), &at("a/b c"), b"data", WriteOptions::ATOMIC).unwrap();
    let request = requests.recv().unwrap();
    let expected =
        "POST /upload/storage/v1/b/bucket/o?uploadType=multipart&fields=crc32c%2Cname%2Csize&userProject=my%20project";
    assert_eq!(request.line, expected);
    assert!(request.head.contains("authorization: bearer secret-token"), "{}", request.head);
    let body = String::from_utf8(request.body).unwrap();
    let metadata = body.lines().find(|line| line.starts_with('{')).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(metadata).unwrap();
    assert_eq!(metadata["name"], "repo/a/b c");
    assert_eq!(metadata["metadata"]["a b"], "c\"d");
    assert_eq!(metadata["crc32c"], "rth90Q==");
    assert!(body.contains("\r\n\r\ndata\r\n--"), "{body}");
}

#[test]
fn large_file_goes_up_in_whole_units_and_ends_with_its_size() {
    let data: Vec<u8> = (0..(9u32 << 20) + 5).map(|i| (i >> 8) as u8).collect();
    let unit = 256 << 10;
    let stored = |size: usize| answer_with("308 Resume Incomplete", &format!("range: bytes=0-{}\r\n", size - 1), "");
    // A part of 4 MiB and some is sent without its remainder; of the second, the server first keeps only a part
    let part = (4 << 20) + 1000;
    let (first, second) = (part - part % unit, 2 * part - 2 * part % unit);
    let (address, requests) = server(vec![
        answer_with("200 OK", "location: http://elsewhere/upload?x=y&upload_id=secret%2Did\r\n", "{}"),
        stored(first),
        stored(first + unit),
        stored(second),
        answer(&description("big", &data)),
    ]);
    let storage = open(&GcsSettings { part_size_bytes: part, ..settings(&address) }).unwrap();
    put(&storage, &at("big"), &data, WriteOptions::ATOMIC).unwrap();
    let begin = requests.recv().unwrap();
    assert_eq!(begin.line, "POST /upload/storage/v1/b/bucket/o?uploadType=resumable&name=repo%2Fbig");
    let mut sent = Vec::new();
    for range in [
        format!("0-{}/*", first - 1),
        format!("{first}-{}/*", second - 1),
        format!("{}-{}/*", first + unit, second - 1),
        format!("{second}-{}/{}", data.len() - 1, data.len()),
    ] {
        let chunk = requests.recv().unwrap();
        assert!(chunk.line.starts_with("PUT /upload/storage/v1/b/bucket/o?uploadType=resumable&upload_id=secret-id&"));
        assert!(chunk.head.contains(&format!("content-range: bytes {range}")), "{range}\n{}", chunk.head);
        assert!(!chunk.head.contains("authorization"), "{}", chunk.head);
        let start: usize = range.split('-').next().unwrap().parse().unwrap();
        sent.truncate(start);
        sent.extend(chunk.body);
    }
    assert!(sent == data);
}

#[test]
fn chunk_of_which_nothing_was_kept_is_sent_again() {
    let unit = 256 << 10;
    let data = vec![7; unit + 5];
    let resume = |headers: &str| answer_with("308 Resume Incomplete", headers, "");
    let stored = |size: usize| resume(&format!("range: bytes=0-{}\r\n", size - 1));
    let (address, requests) = server(vec![
        answer_with("200 OK", "location: http://elsewhere/upload?upload_id=id\r\n", "{}"),
        resume(""),
        resume(""),
        stored(unit),
        // First nothing of the last chunk, then all of it, but the object does not exist yet
        stored(unit),
        stored(data.len()),
        answer(&description("big", &data)),
    ]);
    let storage = open(&GcsSettings { part_size_bytes: unit, ..settings(&address) }).unwrap();
    put(&storage, &at("big"), &data, WriteOptions::ATOMIC).unwrap();
    let ranges: Vec<_> = requests
        .iter()
        .skip(1)
        .map(|chunk| chunk.head.lines().find_map(|line| Some(line.strip_prefix("content-range: bytes ")?.to_owned())))
        .map(Option::unwrap)
        .collect();
    let (first, last) = (format!("0-{}/*", unit - 1), format!("{unit}-{}/{}", data.len() - 1, data.len()));
    assert_eq!(ranges, [first.as_str(), &first, &first, &last, &last, &format!("*/{}", data.len())]);
}

#[test]
fn upload_that_lost_what_it_had_is_an_error() {
    let unit = 256 << 10;
    let stored = |size: usize| answer_with("308 Resume Incomplete", &format!("range: bytes=0-{}\r\n", size - 1), "");
    let (address, _requests) = server(vec![
        answer_with("200 OK", "location: http://elsewhere/upload?upload_id=id\r\n", "{}"),
        stored(2 * unit),
        stored(unit),
        answer_with("204 No Content", "", ""),
    ]);
    let storage = open(&GcsSettings { part_size_bytes: 2 * unit, ..settings(&address) }).unwrap();
    let error = put(&storage, &at("big"), &vec![7; 4 * unit], WriteOptions::ATOMIC).unwrap_err();
    assert!(error.to_string().contains("the server has 262144 bytes of an upload instead of 1048576"), "{error}");
}

#[test]
fn object_with_another_checksum_is_an_error_and_removed() {
    let (address, requests) =
        server(vec![answer(&description("file", b"other")), answer_with("204 No Content", "", "")]);
    let storage = open(&settings(&address)).unwrap();
    let error = put(&storage, &at("file"), b"data", WriteOptions::ATOMIC).unwrap_err();
    assert_eq!(error.code, ErrorCode::Format);
    assert!(error.to_string().contains("expected crc32c 'rth90Q==' and 4 bytes for '/repo/file'"), "{error}");
    assert!(requests.recv().unwrap().line.starts_with("POST "));
    assert_eq!(requests.recv().unwrap().line, "DELETE /storage/v1/b/bucket/o/repo%2Ffile");
}

#[test]
fn refused_request_shows_status_and_message_but_no_token() {
    let body = r#"{"error":{"code":403,"message":"no access to bucket"}}"#;
    let (address, _requests) = server(vec![answer_with("403 Forbidden", "", body)]);
    let error = put(&open(&settings(&address)).unwrap(), &at("file"), b"", WriteOptions::ATOMIC).unwrap_err();
    assert_eq!(error.code, ErrorCode::Protocol);
    let text = error.to_string();
    assert!(text.contains("unable to write '/repo/file'"), "{text}");
    assert!(text.contains(": HTTP request failed with 403 (Forbidden):\n*** Path/Query ***:\nPOST /upload/"), "{text}");
    assert!(text.ends_with("*** Response Content ***:\nno access to bucket"), "{text}");
    assert!(!format!("{error:?}{text}").contains("secret"), "{error:?}");
}

#[test]
fn content_is_asked_for_again_from_where_the_connection_broke() {
    let whole = "HTTP/1.1 200 OK\r\nconnection: close\r\nx-goog-generation: 7\r\ncontent-length: 10\r\n\r\n0123";
    let rest = answer_with("206 Partial Content", "x-goog-generation: 7\r\ncontent-range: bytes 4-9/10\r\n", "456789");
    let (address, requests) = server(vec![whole.to_owned(), rest]);
    let storage = open(&settings(&address)).unwrap();
    assert_eq!(get(&storage, &at("file"), 100).unwrap().unwrap(), b"0123456789");
    assert_eq!(requests.recv().unwrap().line, "GET /storage/v1/b/bucket/o/repo%2Ffile?alt=media");
    let again = requests.recv().unwrap();
    assert_eq!(again.line, "GET /storage/v1/b/bucket/o/repo%2Ffile?alt=media&generation=7");
    assert!(again.head.contains("range: bytes=4-9"), "{}", again.head);
}

#[test]
fn content_that_was_not_asked_for_is_refused() {
    let part = |range: &str| {
        answer_with("206 Partial Content", &format!("x-goog-generation: 7\r\ncontent-range: bytes {range}\r\n"), "2345")
    };
    let read = |answers: Vec<String>| {
        let (address, _requests) = server(answers);
        let range = ReadRange { offset: 2, limit: Some(4) };
        let mut content = Vec::new();
        open(&settings(&address)).unwrap().read(&at("file"), range)?.unwrap().read_to_end(&mut content).unwrap();
        Result::Ok(content)
    };
    assert_eq!(read(vec![part("2-5/10")]).unwrap(), b"2345");
    // Less than requested is correct only at the end
    assert_eq!(read(vec![part("2-5/6")]).unwrap(), b"2345");
    let described = r#"{"name":"repo/file","size":"10","updated":"2026-01-02T03:04:05Z"}"#;
    for bad in ["3-6/10", "2-4/10", "0-3/10"] {
        let error = read(vec![part(bad), answer(described)]).unwrap_err();
        assert!(error.to_string().contains("others than asked for"), "{bad}: {error}");
    }
}

#[test]
fn size_of_an_old_generation_is_not_that_of_the_object() {
    let described = |generation: &str| {
        let size = if generation == "3" { 4 } else { 10 };
        let text = format!(
            r#"{{"generation":"{generation}","name":"repo/file","size":"{size}","updated":"2026-01-02T03:04:05Z"}}"#
        );
        answer(&text)
    };
    let refused = || answer_with("416 Requested range not satisfiable", "", "");
    let range = ReadRange { offset: 6, limit: None };
    let read = |generation: &str| {
        let (address, requests) = server(vec![refused(), described(generation)]);
        let storage = open(&settings(&address)).unwrap();
        let found = storage.versions().unwrap().read_version(&at("file"), range, "3").map(Option::unwrap);
        (found.map(|mut reader| reader.read_to_end(&mut Vec::new()).unwrap()), requests)
    };
    // The read begins past the end of the old generation, but not of the current one
    let (found, requests) = read("3");
    assert_eq!(found.unwrap(), 0);
    let lines: Vec<_> = requests.try_iter().map(|request| request.line).collect();
    let expected = "?fields=generation%2Cname%2Csize%2Cupdated&generation=3";
    assert!(lines[1].ends_with(expected), "{lines:?}");
    assert!(read("4").0.is_err());
}

#[test]
fn content_that_names_no_generation_is_not_the_stores() {
    let page = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\n0123456789";
    let (address, _requests) = server(vec![page.to_owned(), answer("{}")]);
    let error = get(&open(&settings(&address)).unwrap(), &at("file"), 100).unwrap_err();
    assert!(error.message.contains("the answer is not the store's"), "{error}");
}

#[test]
fn listing_whose_page_follows_itself_is_refused() {
    let page = answer(r#"{"kind":"storage#objects","prefixes":["repo/p/"],"nextPageToken":"t"}"#);
    let (address, requests) = server(vec![page.clone(), page.clone(), page]);
    let error = open(&settings(&address)).unwrap().list(&at("")).unwrap_err();
    assert!(error.to_string().contains("leads back to a page that it had already"), "{error}");
    assert_eq!(requests.try_iter().count(), 2);
}

#[test]
fn page_whose_entries_or_end_can_not_be_told_is_no_empty_listing() {
    for field in [r#""items":{}"#, r#""items":null"#, r#""prefixes":"a""#, r#""nextPageToken":7"#] {
        let (address, _requests) = server(vec![answer(&format!(r#"{{"kind":"storage#objects",{field}}}"#))]);
        let error = open(&settings(&address)).unwrap().list(&at("x")).unwrap_err();
        assert_eq!(error.code, ErrorCode::Format, "{field}: {error}");
    }
}

#[test]
fn past_is_read_from_versions() {
    let item = |updated: &str, generation: &str| {
        format!(r#"{{"name":"repo/file","size":"3","updated":"{updated}","generation":"{generation}"}}"#)
    };
    let page = format!(
        r#"{{"kind":"storage#objects","items":[{},{},{}]}}"#,
        item("1970-01-01T00:00:10.1Z", "1"),
        item("1970-01-01T00:00:10.9Z", "2"),
        item("1970-01-01T00:00:11Z", "3")
    );
    let (address, requests) = server(vec![answer(&page), answer_with("200 OK", "x-goog-generation: 2\r\n", "abc")]);
    let storage = open(&GcsSettings { target_time: Some(10), ..settings(&address) }).unwrap();
    assert_eq!(get(&storage, &at("file"), 100).unwrap().unwrap(), b"abc");
    let found = storage.list(&at("")).unwrap().unwrap();
    assert_eq!((found.len(), found[0].version.as_deref()), (1, Some("2")));
    let lines: Vec<_> = requests.try_iter().map(|request| request.line).collect();
    assert_eq!(
        lines,
        [
            "GET /storage/v1/b/bucket/o?fields=kind%2CnextPageToken%2Cprefixes%2Citems%28name%2Csize%2Cupdated%2Cgeneration%29\
             &delimiter=%2F&versions=true&prefix=repo%2F",
            "GET /storage/v1/b/bucket/o/repo%2Ffile?alt=media&generation=2"
        ]
    );
}

#[test]
fn listing_follows_the_pages() {
    let page = |name: &str, next: &str| {
        answer(&format!(
            r#"{{"kind":"storage#objects","items":[{{"name":"repo/{name}","size":"3","updated":"2026-01-02T03:04:05.678Z"}},
                {{"name":"repo/folder/","size":"0","updated":"2026-01-02T03:04:05.678Z"}}],
                "prefixes":["repo/p-{name}/"]{next}}}"#
        ))
    };
    let (address, requests) = server(vec![page("b", r#","nextPageToken":"t/1""#), page("a", "")]);
    let storage = open(&settings(&address)).unwrap();
    let entries = storage.list(&at("")).unwrap().unwrap();
    let names: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.size, entry.modified)).collect();
    assert_eq!(names, [("a", 3, 1_767_323_045), ("b", 3, 1_767_323_045), ("p-a", 0, 0), ("p-b", 0, 0)]);
    let query = "GET /storage/v1/b/bucket/o?fields=kind%2CnextPageToken%2Cprefixes%2Citems%28name%2Csize%2Cupdated%29\
                 &delimiter=%2F&prefix=repo%2F";
    assert_eq!(requests.recv().unwrap().line, query);
    assert_eq!(requests.recv().unwrap().line, format!("{query}&pageToken=t%2F1"));
}

#[test]
fn batch_deletes_alone_what_it_did_not_confirm() {
    let item = |name: &str| format!(r#"{{"name":"repo/{name}","size":"1","updated":"2026-01-02T03:04:05Z"}}"#);
    let part = |id: &str, status: &str| {
        format!("--batch\r\nContent-Type: application/http\r\nContent-ID: {id}\r\n\r\nHTTP/1.1 {status}\r\n\r\n\r\n")
    };
    let confirmed = [
        part("response-0", "204 No Content"),
        part("<response-1>", "404 Not Found"),
        part("response-2", "503 Service Unavailable"),
    ];
    let kind = "content-type: multipart/mixed; boundary=\"batch\"\r\n";
    let (address, requests) = server(vec![
        answer(&format!(
            r#"{{"kind":"storage#objects","items":[{},{},{},{}]}}"#,
            item("a"),
            item("b"),
            item("c"),
            item("d")
        )),
        answer_with("200 OK", kind, &format!("{}--batch--", confirmed.concat())),
        answer_with("204 No Content", "", ""),
        answer_with("404 Not Found", "", r#"{"error":{"code":404,"message":"No such object: bucket/repo/d"}}"#),
    ]);
    open(&settings(&address)).unwrap().remove_all(&at("")).unwrap();
    let lines: Vec<_> = std::iter::from_fn(|| requests.recv().ok()).map(|request| request.line).collect();
    assert_eq!(lines[1], "POST /batch/storage/v1");
    // "c" failed in the batch and "d" was not mentioned
    assert_eq!(lines[2..], ["DELETE /storage/v1/b/bucket/o/repo%2Fc", "DELETE /storage/v1/b/bucket/o/repo%2Fd"]);
}

#[test]
fn metadata_service_is_asked_once_for_a_token() {
    let token = r#"{"access_token":"meta-token","expires_in":3599,"token_type":"Bearer"}"#;
    let (metadata, asked) = server(vec![answer(token)]);
    let (address, requests) = server(vec![answer(EMPTY), answer(EMPTY)]);
    let metadata_url = Some(format!("{metadata}/token"));
    let credentials = GcsCredentials::Auto { metadata_url };
    let storage = open(&GcsSettings { credentials, ..settings(&address) }).unwrap();
    for _ in 0..2 {
        assert!(storage.list(&at("")).unwrap().is_none());
        assert!(requests.recv().unwrap().head.contains("authorization: bearer meta-token"));
    }
    let question = asked.recv().unwrap();
    assert_eq!(question.line, "GET /token");
    assert!(question.head.contains("metadata-flavor: google"), "{}", question.head);
}

/// The key file of a service account for a token service. The key is generated for each run.
fn key_file(folder: &std::path::Path, token_uri: &str) -> (GcsCredentials, Vec<u8>) {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::KeyPair as _;
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = key.as_der().unwrap();
    let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, der.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    let file = folder.join("key.json");
    let json = serde_json::json!({"client_email": "me@example.com", "private_key": pem, "token_uri": token_uri});
    std::fs::write(&file, json.to_string()).unwrap();
    (GcsCredentials::Service { file: file.to_str().unwrap().into() }, key.public_key().as_ref().to_vec())
}

#[test]
fn service_account_signs_its_request_for_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let token = r#"{"access_token":"service-token","expires_in":"3599","token_type":"Bearer"}"#;
    let (tokens, asked) = server(vec![answer(token)]);
    let (credentials, public) = key_file(folder.path(), &format!("{tokens}/token"));
    let (address, requests) = server(vec![answer(EMPTY)]);
    let storage = open(&GcsSettings { credentials, ..settings(&address) }).unwrap();
    assert!(storage.list(&at("")).unwrap().is_none());
    assert!(requests.recv().unwrap().head.contains("authorization: bearer service-token"));
    let question = asked.recv().unwrap();
    let body = String::from_utf8(question.body).unwrap();
    let assertion =
        body.strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=").unwrap();
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let decode = |text| base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, text).unwrap();
    let claim: serde_json::Value = serde_json::from_slice(&decode(signed.split_once('.').unwrap().1)).unwrap();
    assert_eq!(claim["iss"], "me@example.com");
    assert_eq!(claim["aud"], format!("{tokens}/token"));
    assert_eq!(claim["exp"].as_u64().unwrap() - claim["iat"].as_u64().unwrap(), 3600);
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256, public);
    key.verify(signed.as_bytes(), &decode(signature)).unwrap();
}

#[test]
fn web_identity_is_exchanged_for_a_token_again_when_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    // The second token is needed at once: a token is renewed before requests could be retried with it
    let token = |name: &str| format!(r#"{{"access_token":"{name}","expires_in":1,"token_type":"Bearer"}}"#);
    let (tokens, asked) = server(vec![answer(&token("first-token")), answer(&token("second-token"))]);
    let (address, requests) = server(vec![answer(EMPTY), answer(EMPTY)]);
    let (identity, file) = (folder.path().join("identity"), folder.path().join("key.json"));
    let account = serde_json::json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/p",
        "token_url": format!("{tokens}/v1/token"),
        "credential_source": {"file": identity, "format": {"type": "text"}},
    });
    std::fs::write(&file, account.to_string()).unwrap();
    let credentials = GcsCredentials::External { file: file.to_str().unwrap().into() };
    let storage = open(&GcsSettings { credentials, ..settings(&address) }).unwrap();
    for name in ["first", "second"] {
        std::fs::write(&identity, format!("{name}-identity\n")).unwrap();
        assert!(storage.list(&at("")).unwrap().is_none());
        assert!(requests.recv().unwrap().head.contains(&format!("authorization: bearer {name}-token")));
        let question = asked.recv().unwrap();
        assert_eq!(question.line, "POST /v1/token");
        let body = String::from_utf8(question.body).unwrap();
        assert!(body.contains(&format!("&subject_token={name}-identity&")), "{body}");
    }
}

#[test]
fn token_service_is_checked_though_the_storage_is_not() {
    let http = HttpSettings { verify_tls: false, ..settings("").http };
    let services = token::Services::new("https://localhost:4443", &http).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&services.storage, &services.others));
    let of = |url: &str| {
        let request = exchange::form_request(url, String::new()).unwrap();
        std::ptr::eq(services.of(&request), &*services.storage)
    };
    assert!(of("https://localhost:4443/token"));
    assert!(
        !of("https://oauth2.googleapis.com/token") && !of("https://localhost/token") && !of("http://localhost:4443/x")
    );
}

#[test]
fn refused_token_is_reported_as_pgbackrest_does() {
    let folder = tempfile::tempdir().unwrap();
    let refused = r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#;
    let (tokens, _asked) = server(vec![answer_with("400 Bad Request", "", refused)]);
    let (credentials, _) = key_file(folder.path(), &tokens);
    let storage = open(&GcsSettings { credentials, ..settings("http://127.0.0.1:9") }).unwrap();
    let error = storage.list(&at("")).unwrap_err();
    assert_eq!(error.code, ErrorCode::Protocol);
    let expected = "unable to get authentication token: [invalid_grant] Invalid JWT Signature.";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn key_file_that_can_not_be_used_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.json");
    let open_with = |text: Option<&str>| {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let credentials = GcsCredentials::Service { file: file.to_str().unwrap().into() };
        open(&GcsSettings { credentials, ..settings("localhost") }).map(drop).unwrap_err()
    };
    assert_eq!(open_with(None).code, ErrorCode::FileMissing);
    let error = open_with(Some("my-secret"));
    assert_eq!(error.code, ErrorCode::JsonFormat);
    assert!(!error.to_string().contains("my-secret"));
    assert_eq!(open_with(Some("{}")).to_string(), "uri missing");
    assert_eq!(open_with(Some(r#"{"token_uri":"https://x"}"#)).to_string(), "credentials missing");
}
