//! Credentials from fake services.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Mutex as StdMutex;

use super::*;
use crate::storage::network;

/// A server that records its requests, as `METHOD path` with the headers below, and answers each by a function.
struct Fake {
    url: String,
    seen: Arc<StdMutex<Vec<String>>>,
}

impl Fake {
    fn start(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> Self {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let seen = Arc::new(StdMutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        // Ends with the tests' process
        std::thread::spawn(move || {
            for connection in server.incoming() {
                let mut connection = connection.unwrap();
                let lines = BufReader::new(connection.try_clone().unwrap()).lines().map_while(std::result::Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let head = head.join("\n").replacen(" HTTP/1.1", "", 1);
                let (status, body) = answer(&head);
                kept.lock().unwrap().push(head);
                let size = body.len();
                let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n");
                let _ = connection.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Fake { url, seen }
    }

    /// The first lines of the requests so far.
    fn asked(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|head| head.lines().next().unwrap().to_owned()).collect()
    }

    /// The header lines of a request.
    fn has_header(&self, request: usize, line: &str) -> bool {
        self.seen.lock().unwrap()[request].lines().any(|found| found.eq_ignore_ascii_case(line))
    }
}

fn requests() -> Requests {
    let io_timeout = Duration::from_secs(5);
    Requests::new(&HttpSettings { host: None, verify_tls: true, ca_file: None, ca_path: None, io_timeout }).unwrap()
}

fn temporary(source: Source) -> Temporary {
    Temporary { source: Arc::new(source), current: Kept::new() }
}

fn instance_of(fake: &Fake, role: Option<&str>) -> Temporary {
    temporary(Source::Instance {
        url: fake.url.clone(),
        role: OnceCell::new_with(role.map(str::to_owned)),
        token_ttl: Duration::from_secs(180),
        requests: requests(),
    })
}

fn get(provider: &Temporary) -> Result<Arc<AwsCredential>> {
    network::handle().unwrap().block_on(provider.get_credential()).map_err(|error| match error {
        object_store::Error::Generic { source, .. } => *source.downcast().unwrap(),
        other => panic!("{other}"),
    })
}

/// The time so many seconds from now, as services write it.
fn in_seconds(seconds: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string()
}

fn key_json(number: usize, token: &str, seconds: i64) -> String {
    let expires = in_seconds(seconds);
    format!(
        r#"{{"Code":"Success","AccessKeyId":"key{number}","SecretAccessKey":"secret","{token}":"session","Expiration":"{expires}"}}"#
    )
}

/// A metadata service with the role `reader`, optionally with tokens.
fn metadata(head: &str, tokens: bool, seconds: i64) -> (u16, String) {
    let has_token = head.contains("x-aws-ec2-metadata-token: imds-secret");
    match head.lines().next().unwrap() {
        "PUT /latest/api/token" if tokens => (200, "imds-secret".into()),
        "PUT /latest/api/token" => (405, "no such method".into()),
        _ if tokens && !has_token => (401, "token needed".into()),
        "GET /latest/meta-data/iam/security-credentials" => (200, "reader\n".into()),
        "GET /latest/meta-data/iam/security-credentials/reader" => (200, key_json(1, "Token", seconds)),
        "GET /latest/meta-data/iam/security-credentials/broken" => (200, r#"{"Code":"Failed"}"#.into()),
        _ => (404, "nothing".into()),
    }
}

const ROLES: &str = "GET /latest/meta-data/iam/security-credentials";
const READER: &str = "GET /latest/meta-data/iam/security-credentials/reader";

#[test]
fn instance_has_a_role_and_credentials() {
    let fake = Fake::start(|head| metadata(head, true, 3600));
    let provider = instance_of(&fake, None);
    let credential = get(&provider).unwrap();
    assert_eq!(
        *credential,
        AwsCredential { key_id: "key1".into(), secret_key: "secret".into(), token: Some("session".into()) }
    );
    assert_eq!(get(&provider).unwrap(), credential);
    assert_eq!(fake.asked(), ["PUT /latest/api/token", ROLES, READER], "asked once");
    assert!(fake.has_header(0, "x-aws-ec2-metadata-token-ttl-seconds: 180"));
}

#[test]
fn instance_without_tokens_is_asked_as_before_there_were_any() {
    let fake = Fake::start(|head| metadata(head, false, 3600));
    assert_eq!(get(&instance_of(&fake, None)).unwrap().key_id, "key1");
    assert_eq!(fake.asked(), ["PUT /latest/api/token", ROLES, READER]);
}

#[test]
fn chosen_role_of_an_instance_is_not_looked_up() {
    let fake = Fake::start(|head| metadata(head, true, 3600));
    assert_eq!(get(&instance_of(&fake, Some("reader"))).unwrap().key_id, "key1");
    assert_eq!(fake.asked(), ["PUT /latest/api/token", READER]);
}

#[test]
fn roles_that_are_not_there_are_errors_with_a_hint() {
    let fake = Fake::start(|head| metadata(head, true, 3600));
    let error = get(&instance_of(&fake, Some("writer"))).unwrap_err();
    assert_eq!(error.code, ErrorCode::Protocol);
    assert_eq!(
        error.to_string(),
        "role 'writer' not found\nHINT: is 'writer' a valid IAM role associated with this instance?"
    );
    let error = get(&instance_of(&fake, Some("broken"))).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (ErrorCode::Format, "unable to retrieve temporary credentials: Failed")
    );
    let none = Fake::start(|_| (404, String::new()));
    let error = get(&instance_of(&none, None)).unwrap_err();
    assert!(error.to_string().starts_with("role to retrieve temporary credentials not found\nHINT: "), "{error}");
    let refused = Fake::start(|_| (403, "not you".into()));
    let error = get(&instance_of(&refused, None)).unwrap_err();
    assert!(
        error.message.starts_with("unable to get temporary credentials: HTTP request failed with 403 (Forbidden):\n")
    );
    assert!(error.message.ends_with("\nnot you"), "{error}");
}

#[test]
fn credentials_are_renewed_when_they_expire_and_the_role_is_kept() {
    let fake = Fake::start(|head| metadata(head, true, 5));
    let provider = instance_of(&fake, None);
    get(&provider).unwrap();
    get(&provider).unwrap();
    assert_eq!(fake.asked().len(), 3, "used until they expire");
    std::thread::sleep(Duration::from_millis(5100));
    get(&provider).unwrap();
    assert_eq!(fake.asked()[3..], ["PUT /latest/api/token", READER]);
}

#[test]
fn credentials_are_renewed_before_they_expire() {
    let after = |seconds| {
        let now = SystemTime::now();
        let renew_at = validity(&in_seconds(seconds)).unwrap().renew_at;
        renew_at.duration_since(now).unwrap_or_default().as_secs()
    };
    assert!((3295..=3300).contains(&after(3600)));
    assert!((5..=10).contains(&after(200)));
    assert!((0..=2).contains(&after(2)));
    assert_eq!(after(-5), 0);
    assert!(validity("soon").is_err());
    let now = SystemTime::now();
    let expires = validity(&in_seconds(3600)).unwrap().expires_at.duration_since(now).unwrap();
    assert!((3598..=3600).contains(&expires.as_secs()), "{expires:?}");
}

#[test]
fn passing_faults_of_a_service_are_tried_again() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let fake = Fake::start(move |head| match count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        2 => (503, "busy".into()),
        _ => metadata(head, true, 3600),
    });
    assert_eq!(get(&instance_of(&fake, None)).unwrap().key_id, "key1");
    assert_eq!(fake.asked(), ["PUT /latest/api/token", ROLES, READER, READER]);
}

#[test]
fn pod_sends_the_token_that_the_file_holds_now() {
    let fake = Fake::start(|_| (200, key_json(2, "Token", 1)));
    let file = tempfile::NamedTempFile::new().unwrap();
    let provider = temporary(Source::PodIdentity {
        url: format!("{}/v1/credentials", fake.url),
        token_file: file.path().to_str().unwrap().to_owned(),
        requests: requests(),
    });
    for (number, token) in ["first-token", "second-token"].iter().enumerate() {
        std::fs::write(file.path(), format!("{token}\n")).unwrap();
        assert_eq!(get(&provider).unwrap().key_id, "key2");
        assert!(fake.has_header(number, &format!("authorization: {token}")));
        std::thread::sleep(Duration::from_millis(1100));
    }
    assert_eq!(fake.asked(), ["GET /v1/credentials", "GET /v1/credentials"]);
}

#[test]
fn web_identity_assumes_the_role() {
    let answer = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><SessionToken>t&amp;1</SessionToken>\
         <SecretAccessKey>s</SecretAccessKey><Expiration>{}</Expiration><AccessKeyId>k</AccessKeyId></Credentials>\
         </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
        in_seconds(3600)
    );
    let fake = Fake::start(move |_| (200, answer.clone()));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "to/ken+=").unwrap();
    let provider = temporary(Source::WebIdentity {
        url: fake.url.clone(),
        role: "arn:aws:iam::1:role/x".into(),
        token_file: file.path().to_str().unwrap().to_owned(),
        requests: requests(),
    });
    let credential = get(&provider).unwrap();
    assert_eq!(*credential, AwsCredential { key_id: "k".into(), secret_key: "s".into(), token: Some("t&1".into()) });
    assert_eq!(
        fake.asked(),
        ["GET /?Action=AssumeRoleWithWebIdentity&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fx&RoleSessionName=pgBackRest\
          &Version=2011-06-15&WebIdentityToken=to%2Fken%2B%3D"]
    );
}

#[test]
fn no_error_shows_a_secret() {
    let token_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token_file.path(), "topsecret").unwrap();
    let file = token_file.path().to_str().unwrap().to_owned();
    let secrets: [(u16, &str); 5] = [
        (200, r#"{"Code":"Success","AccessKeyId":"topsecret","SecretAccessKey":"topsecret","Token":"topsecret"}"#),
        (
            200,
            r#"{"AccessKeyId":"topsecret","SecretAccessKey":"topsecret","Token":"topsecret","Expiration":"topsecret"}"#,
        ),
        (200, "topsecret"),
        (
            200,
            "<a><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>topsecret</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult></a>",
        ),
        (400, "refused"),
    ];
    for (status, body) in secrets {
        let fake = Fake::start(move |head| match head.starts_with("PUT") {
            true => (200, "topsecret".into()),
            false => (status, body.to_owned()),
        });
        let printed = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(printed.path(), body).unwrap();
        let sources = [
            Source::WebIdentity {
                url: fake.url.clone(),
                role: "r".into(),
                token_file: file.clone(),
                requests: requests(),
            },
            Source::PodIdentity { url: fake.url.clone(), token_file: file.clone(), requests: requests() },
            Source::Process {
                command: vec!["/bin/cat".into(), printed.path().to_str().unwrap().to_owned()],
                limit: LIMIT,
            },
        ];
        let providers = sources.into_iter().map(temporary).chain([instance_of(&fake, Some("reader"))]);
        for provider in providers {
            let Err(error) = get(&provider) else {
                assert!(matches!(*provider.source, Source::Process { .. }), "{body}");
                continue;
            };
            assert!(!format!("{error} {error:?} {provider:?}").contains("topsecret"), "{error:?} {provider:?}");
        }
    }
    // Nobody listens
    let provider = temporary(Source::WebIdentity {
        url: "https://127.0.0.1:1".into(),
        role: "r".into(),
        token_file: file,
        requests: Requests::new(&HttpSettings {
            host: None,
            verify_tls: true,
            ca_file: None,
            ca_path: None,
            io_timeout: Duration::from_millis(1),
        })
        .unwrap(),
    });
    let token_missing = temporary(Source::PodIdentity {
        url: "http://127.0.0.1:1".into(),
        token_file: "/does/not/exist".into(),
        requests: requests(),
    });
    assert!(!format!("{provider:?}").contains("topsecret"));
    assert_eq!(get(&token_missing).unwrap_err().code, ErrorCode::FileOpen);
}

/// Longer than any command that ends.
const LIMIT: Duration = Duration::from_secs(60);

fn ask(output: &str) -> Result<Issued> {
    ask_process(&["/bin/echo".into(), output.into()], LIMIT)
}

#[test]
fn credential_process_answer_is_read() {
    let issued = ask(r#"{"Version":1,"AccessKeyId":"k","SecretAccessKey":"s","SessionToken":"t"}"#).unwrap();
    assert_eq!(issued.value.key_id, "k");
    assert_eq!(issued.value.token.as_deref(), Some("t"));
    assert!(issued.validity.is_none());
    assert!(ask(&key_json(1, "SessionToken", 3600)).unwrap().validity.is_some());
}

#[test]
fn credential_process_that_fails_is_an_error() {
    assert_eq!(ask(r#"{"AccessKeyId":"k"}"#).err().unwrap().message, "secret access key missing");
    assert_eq!(ask("not json").err().unwrap().code, ErrorCode::JsonFormat);
    for command in [vec!["/bin/false".to_owned()], vec!["/does/not/exist".to_owned()]] {
        assert_eq!(ask_process(&command, LIMIT).err().unwrap().code, ErrorCode::Execute);
    }
    assert!(ask_process(&[], LIMIT).is_err());
}

#[test]
fn credential_process_that_does_not_end_is_an_error_in_time() {
    let printed = "{\"AccessKeyId\":\"k\",\"SecretAccessKey\":\"s\"}";
    for (command, in_time) in [
        ("exec sleep 60".to_owned(), false),
        // Another process keeps its output open
        (format!("sleep 60 & echo '{printed}'"), false),
        (format!("echo '{printed}'; exec sleep 0.1"), true),
    ] {
        let begin = Instant::now();
        let limit = if in_time { LIMIT } else { Duration::from_secs(1) };
        let asked = ask_process(&["/bin/sh".into(), "-c".into(), command.clone()], limit);
        assert!(begin.elapsed() < Duration::from_secs(30), "{command}");
        match asked {
            Ok(issued) => assert!(in_time && issued.value.key_id == "k", "{command}"),
            Err(error) => assert!(!in_time && error.message.contains("within 1 second"), "{command}: {error}"),
        }
    }
}

#[test]
fn credential_process_is_run_again_when_its_credentials_expire() {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    let script = format!(
        "echo >> {count}; echo '{{\"AccessKeyId\":\"k'$(wc -l < {count})'\",\"SecretAccessKey\":\"s\",\"SessionToken\":\"t\",\
         \"Expiration\":\"'$(date -u -d '+2 seconds' +%Y-%m-%dT%H:%M:%SZ)'\"}}'",
        count = count.display()
    );
    let provider = temporary(Source::Process { command: vec!["/bin/sh".into(), "-c".into(), script], limit: LIMIT });
    assert_eq!(get(&provider).unwrap().key_id, "k1");
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(get(&provider).unwrap().key_id, "k2");
}
