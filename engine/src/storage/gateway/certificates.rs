//! The gateway's certificates, and tests of what happens with a certificate that is not the store's.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::stores::{ALL, http};
use super::tests::{LIMIT, Operation, info, list, read, write};
use super::{Gateway, Reply};
use crate::ErrorCode;
use crate::storage::http::HttpSettings;

/// A certificate and its key.
#[derive(Clone, Copy)]
pub(super) struct ServerKeys {
    certificate: &'static str,
    key: &'static str,
}

impl ServerKeys {
    /// Performs the server's part of the handshake as the client's part arrives.
    pub(super) fn accept(self, connection: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), connection)
    }
}

#[test]
fn certificate_that_is_not_the_stores_is_refused_and_not_tried_again() {
    let mut authority = tempfile::NamedTempFile::new().unwrap();
    authority.write_all(AUTHORITY.as_bytes()).unwrap();
    let ca_file = Some(authority.path().to_owned());
    let cases = [
        ("another certificate", OTHER, ca_file.clone(), true, false),
        ("another authority", STORE, None, true, false),
        ("the store's certificate", STORE, ca_file, true, true),
        ("one that is not checked", OTHER, None, false, true),
    ];
    for kind in ALL {
        for (case, identity, ca_file, verify_tls, is_trusted) in cases.clone() {
            let gateway = Gateway::start_tls(identity, move |asked| kind.answer(asked));
            let storage = kind.open(&gateway.url, HttpSettings { ca_file, verify_tls, ..http(LIMIT) });
            for (name, operation) in [("list", list as Operation), ("info", info), ("read", read), ("write", write)] {
                let done = operation(&*storage);
                let (requests, connections) = (gateway.take().len(), gateway.take_connections());
                assert_eq!(connections, 1, "{kind:?}, {case}, {name}");
                assert_eq!(
                    done.as_ref().err().map(|error| error.code),
                    (!is_trusted).then_some(ErrorCode::Crypto),
                    "{done:?}"
                );
                assert_eq!(requests, usize::from(is_trusted), "{kind:?}, {case}, {name}");
            }
        }
    }
}

#[test]
fn handshake_that_breaks_off_may_pass() {
    let gateway = Gateway::start(|_| Reply::new(200, &[], ""));
    // The server does not speak TLS
    let url = gateway.url.replace("http://", "https://");
    let error = list(&*ALL[0].open(&url, http(std::time::Duration::from_millis(10)))).unwrap_err();
    assert_eq!(error.code, ErrorCode::Service, "{error}");
}

/// The authority that signed the certificates below. They are valid until 2120.
const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBdzCCAR6gAwIBAgIUJzU5WLR6iA+frEkZnXJqw7E8+tswCgYIKoZIzj0EAwIw\n\
GTEXMBUGA1UEAwwOdGVzdCBhdXRob3JpdHkwIBcNMjAwMTAxMDAwMDAwWhgPMjEy\n\
MDAxMDEwMDAwMDBaMBkxFzAVBgNVBAMMDnRlc3QgYXV0aG9yaXR5MFkwEwYHKoZI\n\
zj0CAQYIKoZIzj0DAQcDQgAELJtBe9HsMKE38xzPkfeStX7wp01dQn78vVTVUH7j\n\
pQrtxDhw64ehqIjgoPLHClP0QA/uxuZDwNE22NmAB0PZJ6NCMEAwDwYDVR0TAQH/\n\
BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAgQwHQYDVR0OBBYEFOuJCBpjDAgIOCYmuiD7\n\
QkpTgtr0MAoGCCqGSM49BAMCA0cAMEQCIEcBjnyAwnWfLU1AUdAUGtKpdcZCoEgU\n\
jhX4xwczPgWiAiBgtQnTcS+3mwWhcuHo1Hlb0b4nrbLqAxg5mZpe6Ry/FQ==\n\
-----END CERTIFICATE-----\n\
";
/// The certificate of the host `localhost` and its address.
const STORE: ServerKeys = ServerKeys {
    certificate: "\
-----BEGIN CERTIFICATE-----\n\
MIIBmjCCAT+gAwIBAgIUKnUv209DMv5U4tI60MWaAv3ro/4wCgYIKoZIzj0EAwIw\n\
GTEXMBUGA1UEAwwOdGVzdCBhdXRob3JpdHkwIBcNMjAwMTAxMDAwMDAwWhgPMjEy\n\
MDAxMDEwMDAwMDBaMBAxDjAMBgNVBAMMBWxvY2FsMFkwEwYHKoZIzj0CAQYIKoZI\n\
zj0DAQcDQgAEOSKucg5FKyxWDrm5/Nd3y37/wzNqL7DpohyftBG7KFKoONpM9xB1\n\
076VbLIe9ihuFNEa4KJLP8afcxeh8DKEJKNsMGowDAYDVR0TAQH/BAIwADAaBgNV\n\
HREEEzARgglsb2NhbGhvc3SHBH8AAAEwHQYDVR0OBBYEFG5Wlmj2uMx+q+mX2y/c\n\
6aFVOq8QMB8GA1UdIwQYMBaAFOuJCBpjDAgIOCYmuiD7QkpTgtr0MAoGCCqGSM49\n\
BAMCA0kAMEYCIQCttnuztLWZNKyrPfejqd0QPpEvdVAICCmJilg9Az+rwAIhAJay\n\
ol0oXME5asupw1rZ5+HOGxvjWF8giKrysI4q9Joc\n\
-----END CERTIFICATE-----\n\
",
    key: "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgo/lZqE8gNRrd8FTi\n\
iEHscyemJf9101rGn7HbMydKJx+hRANCAAQ5Iq5yDkUrLFYOubn813fLfv/DM2ov\n\
sOmiHJ+0EbsoUqg42kz3EHXTvpVssh72KG4U0Rrgoks/xp9zF6HwMoQk\n\
-----END PRIVATE KEY-----\n\
",
};
/// The certificate of the host `store.example.com`.
const OTHER: ServerKeys = ServerKeys {
    certificate: "\
-----BEGIN CERTIFICATE-----\n\
MIIBmzCCAUCgAwIBAgIUM2MBVvHJbOko1Q8wi9VrWKTmRrgwCgYIKoZIzj0EAwIw\n\
GTEXMBUGA1UEAwwOdGVzdCBhdXRob3JpdHkwIBcNMjAwMTAxMDAwMDAwWhgPMjEy\n\
MDAxMDEwMDAwMDBaMA8xDTALBgNVBAMMBGxlYWYwWTATBgcqhkjOPQIBBggqhkjO\n\
PQMBBwNCAASMf+oabiwaQutVrTAakLTKmH99uFgms6jozDX2XscKqIY8ustDSOXJ\n\
2F7k3O9elZgTB1umNVRu4dtWPuvnVnKfo24wbDAMBgNVHRMBAf8EAjAAMBwGA1Ud\n\
EQQVMBOCEXN0b3JlLmV4YW1wbGUuY29tMB0GA1UdDgQWBBQl2d84ajNJyf4BC9fP\n\
/b+cvL0iqTAfBgNVHSMEGDAWgBTriQgaYwwICDgmJrog+0JKU4La9DAKBggqhkjO\n\
PQQDAgNJADBGAiEAiqUkIF94dS3n9XE80dfKVj8M8V4+lJ8ZcTAwKTDSmfUCIQD8\n\
TpKw7ibyb13Fuj+T9l4srFkaD9HTx2Ejil0lgTT4Jw==\n\
-----END CERTIFICATE-----\n\
",
    key: "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg6pLCU7CSvtvFGsCH\n\
HQAZgFJf02VnN/NGR1xlEdW0hoahRANCAASMf+oabiwaQutVrTAakLTKmH99uFgm\n\
s6jozDX2XscKqIY8ustDSOXJ2F7k3O9elZgTB1umNVRu4dtWPuvnVnKf\n\
-----END PRIVATE KEY-----\n\
",
};
