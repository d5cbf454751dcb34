//! Certificates of hosts.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::space::Space;

/// An authority in the folder `tls` (`NAME.crt`).
pub struct Authority<'s> {
    space: &'s Space,
    name: &'static str,
}

impl<'s> Authority<'s> {
    pub fn new(space: &'s Space, name: &'static str) -> Self {
        space.folder("tls");
        let authority = Self { space, name };
        let line = format!("req -x509 -days 2 {KEY} -subj /CN={name} -addext keyUsage=critical,keyCertSign,cRLSign");
        authority.run(&line, &[("-keyout", &format!("{name}.key")), ("-out", &format!("{name}.crt"))]);
        authority
    }

    /// Issues a certificate (`tls/FILE.crt`, its key `tls/FILE.key`) with these alternative names. Without any it is of
    /// version 1 and has only a common name, as those in pgBackRest's user guide.
    pub fn issue(&self, file: &str, common_name: &str, alternatives: &str) -> &Self {
        self.issue_for(file, common_name, alternatives, 2)
    }

    /// Issues one that is valid for this number of days, which may be over.
    pub fn issue_for(&self, file: &str, common_name: &str, alternatives: &str, days: i32) -> &Self {
        let [key, request, certificate] = ["key", "csr", "crt"].map(|kind| format!("{file}.{kind}"));
        self.run(&format!("req {KEY} -subj /CN={common_name}"), &[("-keyout", &key), ("-out", &request)]);
        let (authority, authority_key) = (format!("{}.crt", self.name), format!("{}.key", self.name));
        let mut files =
            vec![("-in", request.as_str()), ("-CA", &authority), ("-CAkey", &authority_key), ("-out", &certificate)];
        if !alternatives.is_empty() {
            let text = format!("subjectAltName={alternatives}\nextendedKeyUsage=serverAuth,clientAuth\n");
            self.space.write("tls/extensions", text);
            files.push(("-extfile", "extensions"));
        }
        self.run(&format!("x509 -req -CAcreateserial -days {days}"), &files);
        let key = self.space.path(&format!("tls/{key}"));
        std::fs::set_permissions(key, Permissions::from_mode(0o600)).expect("chmod");
        self
    }

    fn run(&self, line: &str, files: &[(&str, &str)]) {
        let mut arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for (option, file) in files {
            arguments.extend([(*option).to_owned(), self.space.text(&format!("tls/{file}"))]);
        }
        self.space.run("openssl", &arguments).success();
    }
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
