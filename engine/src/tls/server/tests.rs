use rustls_pki_types::pem::PemObject;

use super::*;

/// Three trusted certificates: `root` is an authority, `peer` is its own issuer but no authority, `old` is a self-signed one
/// of version 1. After them, certificates that they have signed: one of version 3 by `root` and by `peer`, and one of
/// version 1 by each.
const CERTIFICATES: &[u8] = include_bytes!("tests.pem");

/// Returns whether a server that trusts these accepts the certificate of a client.
fn accepts(trusted: &[CertificateDer<'static>], client: &CertificateDer<'_>) -> bool {
    let provider = Arc::new(ciphers::provider(None, None).unwrap());
    let check = ClientCheck::new(trusted.to_vec(), &provider).unwrap();
    check.verify_client_cert(client, &[], UnixTime::now()).is_ok()
}

// OpenSSL decides the same: `openssl verify -CAfile <the trusted> -purpose sslclient`
#[test]
fn trusted_certificate_of_no_authority_stands_for_itself_and_signs_no_others() {
    let all: Vec<_> = CertificateDer::pem_slice_iter(CERTIFICATES).map(|found| found.unwrap()).collect();
    let (trusted, signed) = all.split_at(3);
    for own in trusted {
        assert!(accepts(trusted, own));
    }
    let accepted: Vec<bool> = signed.iter().map(|client| accepts(trusted, client)).collect();
    assert_eq!(accepted, [true, false, true, false, true]);
    // Without any authority
    let peer = &trusted[1..2];
    assert!(accepts(peer, &peer[0]));
    assert!(signed.iter().all(|client| !accepts(peer, client)));
}
