//! Access for the fuzz targets.

use std::io;
use std::path::PathBuf;
use std::sync::LazyLock;

use engine::serve::Server;

use super::admit::{Gate, admit};
use super::command_line::{ConfigOption, resolve};
use crate::config::decl::{IndexGroup, ValueKind};
use crate::config::{Role, opt};

/// The client, and what it may not name.
const CLIENT: &str = "client";
const SECRET: &str = "/secret";
const PROGRAM: &str = "/usr/bin/rbr";

/// A server without configuration files, so that every place is the default.
static GATE: LazyLock<Gate> = LazyLock::new(|| Gate {
    auth: [(CLIENT.to_owned(), "demo".to_owned())].into(),
    program: PathBuf::from(PROGRAM),
    config_options: vec![ConfigOption { decl: opt::CONFIG.decl(), argument: "--no-config".to_owned(), is_set: true }],
});

/// The first request of a client after the TLS handshake. If the first byte is odd, the client has no certificate.
/// Otherwise, what it may do is within its stanza and the places of this host.
pub fn server_clients(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else { return };
    let Ok(mut server) = Server::greet(stream, io::sink()) else { return };
    if first & 1 == 1 {
        // Any error is a right one
        let _ = server.answer_ping();
        return;
    }
    let Ok(arguments) = server.read_command_line() else { return };
    let Ok(admitted) = admit(&GATE, CLIENT, &arguments) else { return };
    let Ok(config) = resolve(PROGRAM, &admitted.arguments) else { return };
    assert!(config.role() == Role::Remote && config.find(opt::STANZA) == Some("demo"), "{arguments:?}");
    assert!(admitted.arguments.contains(&GATE.config_options[0].argument), "{arguments:?}");
    let asks_for_data = config.find(opt::REMOTE_TYPE) == Some("pg");
    for (decl, key, _) in config.each_slot().filter(|(decl, ..)| decl.kind == ValueKind::Path) {
        // The path of a cluster means nothing to who serves a repository
        let is_reached = decl.group != Some(IndexGroup::Pg) || asks_for_data;
        let names_secret = config.display(decl, key).is_some_and(|path| path.contains(SECRET));
        assert!(!(is_reached && names_secret), "{}: {arguments:?}", decl.name);
    }
}
