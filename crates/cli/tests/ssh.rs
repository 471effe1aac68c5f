//! `bowline ssh-proxy` with a real OpenSSH server and client.

#![cfg(unix)]

mod support;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use support::{Base, Home, Running, eventually};

const SSHD: &str = "/usr/sbin/sshd";

/// A server of this user's own, which takes one key; it ends with the test.
struct Sshd {
    process: Child,
    port: u16,
    folder: PathBuf,
}

impl Sshd {
    fn start(folder: &Path) -> Self {
        let folder = folder.join("ssh");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        for name in ["host_key", "user_key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(name))
                .status();
            assert!(made.unwrap().success());
        }
        fs::copy(folder.join("user_key.pub"), folder.join("authorized_keys")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host_key\nAuthorizedKeysFile {0}/authorized_keys\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n",
            folder.display()
        );
        fs::write(folder.join("sshd_config"), config).unwrap();
        // Where root runs it, it wants this folder.
        let _ = fs::create_dir_all("/run/sshd");
        let process = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(folder.join("sshd_config"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sshd = Self { process, port, folder };
        eventually(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        sshd
    }

    /// A client that comes through `bowline ssh-proxy`.
    fn ssh(&self, home: &Home, device: &str, base: &Base) -> Command {
        let mut command = home.bowline("");
        let environment: Vec<_> = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        let proxy = format!(
            "ProxyCommand={} ssh-proxy {device} --target 127.0.0.1:{} --base {}",
            env!("CARGO_BIN_EXE_bowline"),
            self.port,
            base.name
        );
        command = Command::new("ssh");
        command
            .envs(environment)
            .args(["-F", "none", "-o", &proxy])
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "LogLevel=ERROR",
            ])
            .args(["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-i"])
            .arg(self.folder.join("user_key"))
            .arg(format!(
                "{}@robot",
                nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name
            ));
        command
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn installed() -> bool {
    let there = Path::new(SSHD).exists() && Command::new("ssh").arg("-V").output().is_ok();
    if !there {
        assert!(std::env::var_os("CI").is_none(), "openssh-server and openssh-client are missing");
        eprintln!("SKIPPED: openssh-server or openssh-client is not installed");
    }
    there
}

fn server(base: &Base, friend: &Home, port: u16) -> (Home, Running, String) {
    let home = Home::new();
    let args = format!("serve --allow {} --target 127.0.0.1:{port} --base {}", friend.id(), base.name);
    let mut running = home.start(&args);
    running.stderr.line_with("registered at");
    let id = home.id();
    (home, running, id)
}

#[test]
fn a_command_runs_there_and_its_exit_code_comes_back_and_several_run_at_a_time() {
    if !installed() {
        return;
    }
    let (base, friend) = (Base::start(), Home::new());
    let sshd = Sshd::start(friend.path());
    let (_home, _server, id) = server(&base, &friend, sshd.port);
    let sessions: Vec<_> = (0..3)
        .map(|number| {
            let mut ssh = sshd.ssh(&friend, &id, &base);
            Running::start(ssh.arg(format!("cat; echo session {number}; exit {}", 40 + number)))
        })
        .collect();
    for (number, mut session) in sessions.into_iter().enumerate() {
        session.write(b"standard input\n");
        let ended = session.end();
        assert_eq!(ended.code, Some(40 + i32::try_from(number).unwrap()), "{ended:?}");
        assert_eq!(ended.stdout, format!("standard input\nsession {number}\n"), "{ended:?}");
    }
}

#[test]
fn megabytes_come_and_go() {
    if !installed() {
        return;
    }
    let (base, friend) = (Base::start(), Home::new());
    let sshd = Sshd::start(friend.path());
    let (_home, _server, id) = server(&base, &friend, sshd.port);
    let text: String = (0..500_000).map(|number| format!("{number}\n")).collect();
    let mut session = Running::start(sshd.ssh(&friend, &id, &base).arg("cat"));
    let mut input = session.stdin.take().unwrap();
    let sent = text.clone();
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut input, sent.as_bytes()).unwrap());
    let ended = session.end().ok();
    writing.join().unwrap();
    assert!(ended.stdout == text, "{} of {} bytes", ended.stdout.len(), text.len());
}

#[test]
fn a_device_that_does_not_allow_it_says_why_and_ssh_fails() {
    if !installed() {
        return;
    }
    let (base, friend) = (Base::start(), Home::new());
    let sshd = Sshd::start(friend.path());
    let (_home, _server, id) = server(&base, &friend, 1);
    let ended = Running::start(sshd.ssh(&friend, &id, &base).arg("true")).end();
    assert_eq!(ended.code, Some(255), "{ended:?}");
    let why = format!("refused 127.0.0.1:{}: not in its allow list", sshd.port);
    assert!(ended.stderr.contains(&why), "{ended:?}");
}
