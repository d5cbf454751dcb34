//! What every test server on loopback needs: ports and certificates.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use super::space::Space;

/// Returns the first of `count` consecutive ports that nothing listens on and that no other test of this process was
/// given.
pub fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    // Another run of the tests begins elsewhere
    let start = 20_000 + u16::try_from(std::process::id() % 1000).expect("below 1000") * 10;
    loop {
        let first = start + NEXT.fetch_add(count, Ordering::Relaxed);
        if (first..first + count).all(is_free) {
            return first;
        }
    }
}

/// Creates an authority (`tls/ca.crt`) and a certificate for 127.0.0.1 (`tls/s.crt`, its key `tls/s.key`).
pub fn certificates(space: &Space) {
    space.folder("tls");
    space.write("tls/ext", "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n");
    let at = |name: &str| space.text(&format!("tls/{name}"));
    let run = |line: &str, files: &[(&str, &str)]| {
        let mut arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for (option, file) in files {
            arguments.extend([(*option).to_owned(), at(file)]);
        }
        space.run("openssl", &arguments).success();
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    run(&format!("req -x509 -days 2 {key} -subj /CN=rbr-test-CA"), &[("-keyout", "ca.key"), ("-out", "ca.crt")]);
    run(&format!("req {key} -subj /CN=127.0.0.1"), &[("-keyout", "s.key"), ("-out", "s.csr")]);
    let files = [("-in", "s.csr"), ("-CA", "ca.crt"), ("-CAkey", "ca.key"), ("-out", "s.crt"), ("-extfile", "ext")];
    run("x509 -req -CAcreateserial -days 2", &files);
}
