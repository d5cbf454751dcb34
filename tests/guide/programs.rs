//! Programs that stand for those of a system of the guide.

use std::path::Path;

use crate::env::Space;

/// Paths that the programs need.
pub struct Places<'a> {
    pub space: &'a Space,
    /// The programs of the server.
    pub server: &'a Path,
    /// The programs of the client.
    pub client: &'a Path,
    /// The data directory.
    pub data: &'a str,
}

/// `sudo` changes nothing. `systemctl` runs the cluster, the daemon and servers. `ssh` runs the command with the
/// configuration of the other host. The environments of both hosts are files.
pub fn write(places: &Places<'_>) {
    let Places { space, server, client, data } = *places;
    let (server, log, run) = (server.display(), space.text("log"), space.text("run"));
    space.write_program("bin/sudo", "#!/bin/sh\n[ \"$1\" = -u ] && shift 2\nexec \"$@\"\n");
    space.write_program(
        "bin/systemctl",
        &format!(
            "#!/bin/bash -e
            if [ \"$1\" = enable ]; then [ \"$2\" = --now ]; set -- start \"$3\"; fi
            case \"$1\" in start | stop | restart | reload) ;; *) exit 1 ;; esac
            pid={run}/$GUIDE_HOST-$2.pid log={log}/$GUIDE_HOST-$2.log
            end() {{ [ ! -e $pid ] || {{ kill $(cat $pid); while kill -0 $(cat $pid) 2>/dev/null; do sleep 0.05; done; rm $pid; }}; }}
            case \"$2\" in
            postgresql | postgresql@17-main)
                wait=-w; [ \"$1\" = reload ] && wait=
                {server}/pg_ctl \"$1\" -D {data} -l {log}/postgresql.log $wait -s -t 60 ||
                    {{ tail -n 30 {log}/postgresql.log >&2; exit 1; }} ;;
            rbr)
                end
                [ \"$1\" = stop ] || {{
                    setsid rbr daemon >$log 2>&1 & echo $! >$pid
                    for try in $(seq 100); do
                        if rbr schedule 2>/dev/null | grep -q 'daemon: running'; then exit 0; fi; sleep 0.1
                    done
                    tail $log >&2; exit 1
                }} ;;
            rbr-server)
                end
                [ \"$1\" = stop ] || {{
                    setsid rbr --log-level-console=info server >$log 2>&1 & echo $! >$pid
                    for try in $(seq 100); do
                        if rbr --io-timeout=1 server-ping localhost >/dev/null 2>&1; then exit 0; fi; sleep 0.1
                    done
                    tail $log >&2; exit 1
                }} ;;
            *) echo \"no service $2\" >&2; exit 1 ;;
            esac\n"
        ),
    );
    space.write_program(
        "bin/ssh",
        &format!(
            "#!/bin/sh\ncase \"$*\" in *backup.example.com*) host=backup ;; *db.example.com*) host=db ;; *) exit 255 ;; esac\n\
             . {}/$host\nfor last; do :; done\nexec sh -c \"$last\"\n",
            space.text("environment")
        ),
    );
    // Of another archiver, what matters is that it stores a segment, and accepts it again
    for name in ["wal-g", "barman-wal-archive"] {
        let archive = space.folder("other-archive").display().to_string();
        let copy = format!("#!/bin/sh -e\nfor last; do :; done\ncp \"$last\" {archive}/\n");
        space.write_program(&format!("bin/{name}"), &copy);
    }
    space.folder("environment");
    for host in ["db", "backup"] {
        let inside = |path: &str| if host == "db" { space.text(path) } else { space.text(&format!("{host}/{path}")) };
        // The programs of the server come first, for initdb
        space.write(
            &format!("environment/{host}"),
            format!(
                "export PATH={}:{server}:{}:$PATH PGHOST={run} PGUSER=postgres PGDATABASE=postgres GUIDE_HOST={host}\n\
                 export PGBACKREST_CONFIG={} PGBACKREST_LOG_PATH={} PGBACKREST_LOCK_PATH={}\n{}",
                space.text("bin"),
                client.display(),
                inside("etc/pgbackrest/pgbackrest.conf"),
                inside("var/log/pgbackrest"),
                inside("lock"),
                // The other host has no cluster
                if host == "db" { format!("export PGBACKREST_PG1_SOCKET_PATH={run}\n") } else { String::new() },
            ),
        );
    }
}
