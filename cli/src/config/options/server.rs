//! Options of the server.

use std::collections::BTreeMap;

use crate::config::decl::Command::{Server, ServerPing};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::Support::NotYet;
use crate::config::decl::{Kind, Opt, OptionDecl, Range, on, options};

options! {
    TLS_SERVER_ADDRESS: Opt<String> = OptionDecl {
        name: "tls-server-address",
        kind: Kind::String,
        commands: on(&[Server, ServerPing]),
        default: Fixed("localhost"),
        support: NotYet("the TLS server"),
        summary: "Address of the server.",
        detail: "Where the server listens; an asterisk is every address.",
        ..OptionDecl::BASE
    };

    TLS_SERVER_AUTH: Opt<BTreeMap<String, String>> = OptionDecl {
        name: "tls-server-auth",
        kind: Kind::Hash,
        commands: on(&[Server]),
        support: NotYet("the TLS server"),
        summary: "Clients that may connect.",
        detail: "Name in the certificate and the stanzas that it may use, an asterisk for all. May be given several \
            times.",
        ..OptionDecl::BASE
    };

    TLS_SERVER_CA_FILE: Opt<String> = OptionDecl {
        name: "tls-server-ca-file",
        kind: Kind::Path,
        commands: on(&[Server]),
        support: NotYet("the TLS server"),
        summary: "File of certificate authorities for clients.",
        detail: "Certificates of clients must be signed by one of them.",
        ..OptionDecl::BASE
    };

    TLS_SERVER_CERT_FILE: Opt<String> = OptionDecl {
        name: "tls-server-cert-file",
        kind: Kind::Path,
        commands: on(&[Server]),
        support: NotYet("the TLS server"),
        summary: "Certificate of the server.",
        detail: "Proves to clients who answers.",
        ..OptionDecl::BASE
    };

    TLS_SERVER_KEY_FILE: Opt<String> = OptionDecl {
        name: "tls-server-key-file",
        kind: Kind::Path,
        commands: on(&[Server]),
        support: NotYet("the TLS server"),
        summary: "Key of the server's certificate.",
        detail: "Must be readable by its owner only.",
        ..OptionDecl::BASE
    };

    TLS_SERVER_PORT: Opt<i64> = OptionDecl {
        name: "tls-server-port",
        kind: Kind::Integer,
        commands: on(&[Server, ServerPing]),
        default: Fixed("8432"),
        range: Range::Fixed("1", "65535"),
        support: NotYet("the TLS server"),
        summary: "Port of the server.",
        detail: "Where the server listens.",
        ..OptionDecl::BASE
    };
}
