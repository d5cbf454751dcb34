//! The servers of the guide's repositories, and how they differ from those of its readers.

use crate::env::network::free_ports;
use crate::env::{Azurite, Gcs, Space, Sshd, Weed, azurite, gcs, weed};

/// What a page needs, as its comment says.
pub struct Servers {
    s3: Option<Weed>,
    azure: Option<Azurite>,
    gcs: Option<Gcs>,
    sftp: Option<Sshd>,
    /// Ports of the servers of both hosts.
    tls: Option<[u16; 2]>,
}

impl Servers {
    /// Starts them. Returns `None` if an oracle is missing.
    pub fn start(needs: &[String]) -> Option<Self> {
        let needed = |name: &str| needs.iter().any(|need| need == name);
        /// Starts a server if it is needed. `None` means that it can't be started.
        fn started<T>(needed: bool, start: impl FnOnce() -> Option<T>) -> Option<Option<T>> {
            if needed { start().map(Some) } else { Some(None) }
        }
        Some(Servers {
            s3: started(needed("s3"), Weed::start)?,
            azure: started(needed("azure"), Azurite::start)?,
            gcs: started(needed("gcs"), Gcs::start)?,
            sftp: started(needed("sftp"), Sshd::start_usual)?,
            tls: needed("tls").then(|| {
                let first = free_ports(2);
                [first, first + 1]
            }),
        })
    }

    /// Writes programs that work with the servers' keys.
    pub fn write_programs(&self, space: &Space) {
        if let Some(sftp) = &self.sftp {
            let authorized = sftp.space.text("authorized");
            space.write_program(
                "bin/ssh-copy-id",
                &format!("#!/bin/sh -e\n[ \"$1\" = -i ]\ncat \"$2\" >> {authorized}\n"),
            );
            let scan =
                format!("#!/bin/sh\nexec /usr/bin/ssh-keyscan -p {} -t ed25519 127.0.0.1 2>/dev/null\n", sftp.port());
            space.write_program("bin/ssh-keyscan", &scan);
        }
    }

    /// Replaces the hosts, names and keys of the guide by those of the servers.
    pub fn inside(&self, mut text: String) -> String {
        let mut replace = |from: &str, to: &str| text = text.replace(from, to);
        if let Some(s3) = &self.s3 {
            let (key, secret) = weed::KEY;
            replace("s3.eu-central-1.amazonaws.com", "127.0.0.1");
            let lines = format!(
                "repo1-s3-region=us-east-1\nrepo1-s3-uri-style=path\nrepo1-storage-port={}\nrepo1-storage-ca-file={}",
                s3.port(),
                s3.file("tls/ca.crt").display()
            );
            replace("repo1-s3-region=eu-central-1", &lines);
            replace("example-backups", weed::BUCKET);
            replace("AKIAIOSFODNN7EXAMPLE", key);
            replace("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", secret);
        }
        if let Some(azure) = &self.azure {
            let (account, key) = azurite::ACCOUNT;
            let lines = format!(
                "repo1-type=azure\nrepo1-azure-endpoint=127.0.0.1\nrepo1-azure-uri-style=path\nrepo1-storage-port={}\n\
                 repo1-storage-ca-file={}",
                azure.proxy.port(),
                azure.file("tls/ca.crt").display()
            );
            replace("repo1-type=azure", &lines);
            replace("=examplestorage", &format!("={account}"));
            replace("example-backups", azurite::CONTAINER);
            replace("ZXhhbXBsZSBrZXkgb2YgdGhlIGFjY291bnQ=", key);
        }
        if let Some(gcs) = &self.gcs {
            let lines = format!(
                "repo1-gcs-endpoint=127.0.0.1:{}\nrepo1-storage-ca-file={}\nrepo1-gcs-key-type=token\n\
                 repo1-gcs-key=Bearer secret-token",
                gcs.proxy.port(),
                gcs.file("tls/ca.crt").display()
            );
            replace("repo1-gcs-key=/etc/pgbackrest/gcs-key.json", &lines);
            replace("example-backups", gcs::BUCKET);
        }
        if let Some(sftp) = &self.sftp {
            let lines = format!("repo1-sftp-host=127.0.0.1\nrepo1-sftp-host-port={}", sftp.port());
            replace("repo1-sftp-host=backup.example.com", &lines);
            replace("repo1-sftp-host-user=pgbackup", &format!("repo1-sftp-host-user={}", sftp.space.user().name));
            replace("repo1-path=/backups", &format!("repo1-path={}", sftp.space.text("repo")));
        }
        if let Some([backup, db]) = self.tls {
            for (option, port) in [("repo1-host", backup), ("pg1-host", db)] {
                replace(&format!("{option}-type=tls"), &format!("{option}-type=tls\n{option}-port={port}"));
            }
            for (host, port) in [("backup", backup), ("db", db)] {
                let lines = format!("tls-server-address=127.0.0.1\ntls-server-port={port}");
                replace(&format!("tls-server-address={host}.example.com"), &lines);
                replace(&format!("{host}.example.com"), "localhost");
            }
        }
        text
    }
}
