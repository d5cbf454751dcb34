//! Options of the server.

use std::collections::BTreeMap;

use crate::config::decl::Command::{Server, ServerPing};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{OptionDecl, Range, ValueKind, on};
use crate::config::handle::{Opt, options};

options! {
    TLS_SERVER_ADDRESS: Opt<String> = OptionDecl {
        name: "tls-server-address",
        kind: ValueKind::String,
        commands: on(&[Server, ServerPing]),
        default: Fixed("localhost"),
        summary: "Address of the server.",
        detail: "The address to listen on. An asterisk means every address.",
        ..OptionDecl::BASE
    };

    TLS_SERVER_AUTH: Opt<BTreeMap<String, String>> = OptionDecl {
        name: "tls-server-auth",
        kind: ValueKind::Hash,
        commands: on(&[Server]),
        summary: "Clients that may connect.",
        detail: "A name in the client's certificate and the stanzas that it may access. An asterisk means all \
            stanzas. May be repeated.",
        ..OptionDecl::BASE
    };

    TLS_SERVER_CA_FILE: Opt<String> = OptionDecl {
        name: "tls-server-ca-file",
        kind: ValueKind::Path,
        commands: on(&[Server]),
        summary: "File of certificate authorities for clients.",
        detail: "One of them must have signed the certificates of clients.",
        ..OptionDecl::BASE
    };

    TLS_SERVER_CERT_FILE: Opt<String> = OptionDecl {
        name: "tls-server-cert-file",
        kind: ValueKind::Path,
        commands: on(&[Server]),
        summary: "Certificate of the server.",
        detail: "Authenticates the server to clients.",
        ..OptionDecl::BASE
    };

    TLS_SERVER_KEY_FILE: Opt<String> = OptionDecl {
        name: "tls-server-key-file",
        kind: ValueKind::Path,
        commands: on(&[Server]),
        summary: "Key of the server's certificate.",
        detail: "Must be readable only by its owner.",
        ..OptionDecl::BASE
    };

    TLS_SERVER_PORT: Opt<i64> = OptionDecl {
        name: "tls-server-port",
        kind: ValueKind::Integer,
        commands: on(&[Server, ServerPing]),
        default: Fixed("8432"),
        range: Range::Fixed("1", "65535"),
        summary: "Port of the server.",
        detail: "The port to listen on.",
        ..OptionDecl::BASE
    };
}
