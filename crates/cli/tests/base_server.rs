//! `bowline base`: what it prints, how it ends, what it refuses.

#![cfg(unix)]

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    process::Stdio,
};

use bowline_proto::{
    SecretKey,
    wire::tcp::{BaseFrame, GetCookie, Register},
};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{Base, Home, NOBODY, PATIENCE, Process, eventually};

#[test]
fn it_prints_one_line_for_every_address_it_listens_on_and_nothing_else() {
    let home = Home::new();
    let mut base = home.start("base --listen 127.0.0.1:0 --listen [::1]:0 --state state --drain 0");
    let lines = [base.stdout.line_with("@127.0.0.1:"), base.stdout.line_with("@[::1]:")];
    let ended = base.end_by(Signal::SIGTERM).ok();
    assert_eq!(ended.stdout, format!("{}\n{}\n", lines[0], lines[1]));
    for line in lines {
        let (id, address) = line.strip_prefix("base ").unwrap().split_once('@').unwrap();
        id.parse::<bowline_proto::DeviceId>().unwrap();
        assert_ne!(address.parse::<SocketAddr>().unwrap().port(), 0);
    }
}

#[test]
fn its_key_is_kept_in_the_state_folder_and_makes_the_same_id_again() {
    let home = Home::new();
    let id = || {
        let mut base = home.start("base --listen 127.0.0.1:0 --state state/of/base --drain 0");
        let line = base.stdout.line_with("base ");
        base.end_by(Signal::SIGINT).ok();
        line.split('@').next().unwrap().to_owned()
    };
    assert_eq!(id(), id());
    let key = std::fs::metadata(home.path().join("state/of/base/base.key")).unwrap();
    assert_eq!(key.mode() & 0o777, 0o600);
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let reason = Home::new().run(&format!("base --listen {address} --state state")).failed(1);
    assert!(reason.contains(&address.port().to_string()) && reason.contains("in use"), "{reason}");
}

#[test]
fn the_configuration_file_says_where_to_listen_and_the_command_line_overrules_it() {
    let home = Home::new();
    home.configure("[base]\nlisten = [\"127.0.0.1:0\"]\nstate = \"from-file\"\n");
    let mut by_file = home.start("base --drain 0");
    by_file.stdout.line_with("@127.0.0.1:");
    assert!(home.path().join("from-file/base.key").exists());
    by_file.end_by(Signal::SIGTERM).ok();
    let mut by_option = home.start("base --drain 0 --listen [::1]:0 --state from-option");
    by_option.stdout.line_with("@[::1]:");
    assert!(home.path().join("from-option/base.key").exists());
    by_option.end_by(Signal::SIGTERM).ok();
}

#[test]
fn on_sigterm_it_tells_devices_to_leave_and_then_ends_well() {
    let home = Home::new();
    let mut base = home.start("base --listen 127.0.0.1:0 --state state --drain 1");
    let line = base.stdout.line_with("base ");
    let mut device = Registered::at(line.split_once('@').unwrap().1);
    base.signal(Signal::SIGTERM);
    assert_eq!(device.frame(), [0x16, 0, 1], "GOAWAY: leave within one second");
    assert_eq!(device.frame()[..2], [0x0f, 7], "ERROR 7: draining");
    assert_eq!(device.stream.read(&mut [0]).unwrap(), 0, "and the end of the connection");
    base.end().ok();
}

#[test]
fn a_device_that_does_not_leave_does_not_keep_it_from_ending_in_order() {
    let home = Home::new();
    let mut base = home.start("base --listen 127.0.0.1:0 --state state --drain 1 -v");
    let line = base.stdout.line_with("base ");
    // It neither reads nor closes, as one whose network is gone.
    let _device = Registered::at(line.split_once('@').unwrap().1);
    let ended = base.end_by(Signal::SIGTERM).ok();
    assert!(ended.stderr.contains(" stopped "), "it says what it has counted: {}", ended.stderr);
}

#[test]
fn a_key_that_two_devices_use_is_told_to_both_and_in_the_log() {
    let mut base = Base::start();
    let address = base.name.split_once('@').unwrap().1.to_owned();
    let mut first = Registered::at(&address);
    // Another boot takes over, as a device does that was started again; when the first comes back, there are two.
    let mut second = Registered::with_boot(&address, 2);
    assert_eq!(first.frame()[..2], [0x0f, 8], "ERROR 8: replaced");
    let mut again = Registered::ask(&address, 1);
    assert_eq!(again.frame()[..2], [0x0f, 9], "ERROR 9: two devices use one key");
    assert_eq!(second.frame()[..2], [0x18, 1], "NOTICE 1: another device uses this key");
    let line = base.running.stderr.line_with("two devices use one key");
    assert!(line.contains(&SecretKey::from_seed(&[9; 32]).device_id().to_string()), "{line}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let home = Home::new();
    let mut base = home.start("base --listen 127.0.0.1:0 --state state --drain 3600");
    base.stdout.line_with("base ");
    base.signal(Signal::SIGTERM);
    base.stderr.line_with("telling devices to leave");
    base.end_by(Signal::SIGTERM).ok();
}

#[cfg(target_os = "linux")]
#[test]
fn it_serves_where_what_it_says_goes_to_a_full_disk() {
    let home = Home::new();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut base = home.bowline(&format!("base --listen {address} --state state --drain 0 -vv"));
    let mut base = Process(base.stdout(full()).stderr(full()).spawn().unwrap());
    eventually(|| {
        assert_eq!(base.0.try_wait().unwrap(), None, "it stays");
        TcpStream::connect(address).is_ok()
    });
    Registered::at(&address.to_string());
}

#[test]
fn a_reader_of_its_log_who_stops_reading_stops_nothing_else() {
    let home = Home::new();
    // Nothing goes into it any more, and nobody takes anything out.
    let (_reader, full) = std::io::pipe().unwrap();
    let waits = |waits| {
        let flags = if waits { OFlag::empty() } else { OFlag::O_NONBLOCK };
        fcntl(&full, FcntlArg::F_SETFL(flags)).unwrap();
    };
    waits(false);
    while (&full).write(&[b'x'; 4_096]).is_ok() {}
    while (&full).write(b"x").is_ok() {}
    waits(true);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut base =
        home.bowline(&format!("base --listen {address} --admin 127.0.0.1:0 --state state --drain 1 -v"));
    let mut base = Process(base.stdout(Stdio::null()).stderr(full).spawn().unwrap());
    eventually(|| TcpStream::connect(address).is_ok());
    let address = address.to_string();
    let mut first = Registered::at(&address);
    // Each has a line in the log.
    for boot in 2..10 {
        let second = Registered::with_boot(&address, boot);
        assert_eq!(first.frame()[..2], [0x0f, 8], "ERROR 8: replaced");
        first = second;
    }
    kill(Pid::from_raw(base.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(first.frame(), [0x16, 0, 1], "GOAWAY: leave within one second");
    eventually(|| base.0.try_wait().unwrap().is_some_and(|ended| ended.success()));
}

#[test]
fn devices_move_on_when_their_base_ends() {
    let base = Base::start();
    let (_home, mut listener, _) = base.listener("");
    base.running.end_by(Signal::SIGTERM).ok();
    listener.stderr.line_with("lost the base");
    assert!(listener.is_running());
}

#[test]
fn a_base_with_another_id_than_the_one_written_is_refused() {
    let base = Base::start();
    let address = base.name.split_once('@').unwrap().1;
    let home = Home::new();
    let reason = home.run(&format!("send {NOBODY} hello --timeout 1 --base {NOBODY}@{address}")).failed(1);
    assert!(reason.contains("ID"), "{reason}");
}

/// A device that speaks the protocol by hand, to see every frame.
struct Registered {
    stream: TcpStream,
}

impl Registered {
    fn at(address: &str) -> Self {
        Self::with_boot(address, 1)
    }

    fn with_boot(address: &str, boot: u8) -> Self {
        let mut device = Self::ask(address, boot);
        let frame = device.frame();
        assert!(matches!(BaseFrame::decode(&frame), Ok(BaseFrame::Registered(_))), "{frame:?}");
        device
    }

    /// Sends REGISTER; the answer is for the caller to read.
    fn ask(address: &str, boot: u8) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut device = Self { stream };
        let mut frames = Vec::new();
        GetCookie { highest_version: 1, capabilities: 0 }.write(&mut frames);
        device.stream.write_all(&frames).unwrap();
        let frame = device.frame();
        let Ok(BaseFrame::BaseHello(hello)) = BaseFrame::decode(&frame) else { panic!("{frame:?}") };
        let key = SecretKey::from_seed(&[9; 32]);
        let register = Register {
            device: key.device_id(),
            public_key: key.public(),
            boot: [boot; 8],
            attempt: 1,
            capabilities: 0,
            agent: "test".into(),
        };
        frames.clear();
        register.write(&mut frames, &key, hello.base, &hello.cookie);
        device.stream.write_all(&frames).unwrap();
        device
    }

    /// The next frame, without its length.
    fn frame(&mut self) -> Vec<u8> {
        let mut length = [0; 2];
        self.stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u16::from_be_bytes(length).into()];
        self.stream.read_exact(&mut frame).unwrap();
        frame
    }
}
