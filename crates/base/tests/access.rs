//! Who may be here: a file of devices that changes while the base runs, and a service of the operator's that is asked over HTTP.

mod client;

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use bowline_base::{
    Config, Server,
    config::{HookConfig, Limits},
};
use bowline_proto::{
    DeviceId, SecretKey,
    wire::tcp::{BaseFrame, ErrorCode},
};
use client::{Client, Running, on_loopback, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

fn id(n: u8) -> DeviceId {
    SecretKey::from_seed(&[n; 32]).device_id()
}

/// Replaces a file as careful programs do: at once.
fn write(path: &Path, devices: &[DeviceId]) {
    let text: String = devices.iter().map(|device| format!("{device}\n")).collect();
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn a_device_goes_when_it_is_taken_out_of_the_file_and_may_return_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("allow");
    write(&path, &[id(1), id(2)]);
    let base = Running::start(Config { allow_file: Some(path.clone()), ..on_loopback() }).await;
    let (mut stays, mut goes) = (Client::register(&base, 1).await, Client::register(&base, 2).await);
    let mut stranger = Client::ask_to_register(&base, 3).await;
    assert_eq!(stranger.read_error_code().await, ErrorCode::NotAllowed);

    write(&path, &[id(1)]);
    assert_eq!(goes.read_error_code().await, ErrorCode::NotAllowed);
    stays.ping().await;

    write(&path, &[id(1), id(2), id(3)]);
    until(async || base.handle.inspect(0).await.unwrap().listed == Some((3, 0))).await;
    Client::register(&base, 2).await.ping().await;
    Client::register(&base, 3).await.ping().await;
}

#[tokio::test]
async fn what_the_configuration_itself_allows_stays_allowed_whatever_the_file_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("allow");
    write(&path, &[id(2)]);
    let allow = Some([id(1)].into());
    let base = Running::start(Config { allow, allow_file: Some(path.clone()), ..on_loopback() }).await;
    let (mut one, mut two) = (Client::register(&base, 1).await, Client::register(&base, 2).await);
    write(&path, &[]);
    assert_eq!(two.read_error_code().await, ErrorCode::NotAllowed);
    one.ping().await;
}

#[tokio::test]
async fn a_file_that_becomes_wrong_or_goes_away_leaves_the_list_as_it_was_and_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("allow");
    write(&path, &[id(1)]);
    let base = Running::start(Config { allow_file: Some(path.clone()), ..on_loopback() }).await;
    let mut device = Client::register(&base, 1).await;
    fs::write(&path, "everyone\n").unwrap();
    until(async || base.handle.inspect(0).await.unwrap().listed == Some((1, 1))).await;
    fs::remove_file(&path).unwrap();
    until(async || base.handle.inspect(0).await.unwrap().listed == Some((1, 2))).await;
    device.ping().await;
    let mut stranger = Client::ask_to_register(&base, 2).await;
    assert_eq!(stranger.read_error_code().await, ErrorCode::NotAllowed);
}

#[cfg(unix)]
#[tokio::test]
async fn a_list_that_was_written_anew_is_read_even_if_its_date_and_length_were_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("allow");
    write(&path, &[id(1)]);
    let dated = fs::metadata(&path).unwrap().modified().unwrap();
    let base = Running::start(Config { allow_file: Some(path.clone()), ..on_loopback() }).await;
    let mut device = Client::register(&base, 1).await;
    // As `rsync --inplace --times` does. Whoever only changes who may read the file leaves the same traces.
    fs::write(&path, format!("{}\n", id(2))).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(dated).unwrap();
    assert_eq!(device.read_error_code().await, ErrorCode::NotAllowed);
    Client::register(&base, 2).await.ping().await;
}

/// A pipe that nobody writes to stands for a file system that hangs.
#[cfg(unix)]
#[tokio::test]
async fn a_list_that_cannot_be_looked_at_holds_up_nothing_and_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let (path, pipe) = (folder.path().join("allow"), folder.path().join("pipe"));
    write(&path, &[id(1)]);
    let base = Running::start(Config { allow_file: Some(path.clone()), ..on_loopback() }).await;
    let mut device = Client::register(&base, 1).await;
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Whatever waits for it goes on when the test has ended. A base that stands still holds up the test, too.
    let (ended, wait) = std::sync::mpsc::channel::<()>();
    let stuck = path.clone();
    let release = std::thread::spawn(move || {
        if wait.recv_timeout(2 * client::SOON) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("the base stands still");
            std::process::abort();
        }
        let writing = nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::open(&stuck, writing, nix::sys::stat::Mode::empty())
    });
    fs::rename(&pipe, &path).unwrap();
    until(async || base.handle.inspect(0).await.unwrap().listed == Some((1, 1))).await;
    device.ping().await;
    drop(ended);
    assert!(release.join().unwrap().is_ok(), "something waited for the list");
}

#[tokio::test]
async fn a_base_does_not_start_open_because_its_list_cannot_be_read() {
    let bind = |config| Server::bind(config, SecretKey::from_seed(&[1; 32]));
    let missing = Config { allow_file: Some("/nowhere/allow".into()), ..on_loopback() };
    assert!(bind(missing).await.unwrap_err().to_string().contains("/nowhere/allow"));
    let hook = Some(HookConfig { url: "devices.example".into(), ..hook_at(([127, 0, 0, 1], 1).into()) });
    let error = bind(Config { hook, ..on_loopback() }).await.unwrap_err().to_string();
    assert!(error.contains("devices.example") && error.contains("https://"), "{error}");
}

fn hook_at(address: SocketAddr) -> HookConfig {
    HookConfig {
        url: format!("http://{address}/may?site=7"),
        token_file: None,
        cache_seconds: 300,
        refused_cache_seconds: 300,
    }
}

/// An operator's service: says what it was told to say about each device, and remembers what it was asked.
struct Service {
    address: SocketAddr,
    says: Arc<Mutex<HashMap<DeviceId, u16>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service =
            Self { address: listener.local_addr().unwrap(), says: Arc::default(), asked: Arc::default() };
        let (says, asked) = (Arc::clone(&service.says), Arc::clone(&service.asked));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (says, asked) = (Arc::clone(&says), Arc::clone(&asked));
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                            return;
                        }
                        request.push(byte[0]);
                    }
                    let request = String::from_utf8(request).unwrap();
                    let of = |(device, _): &(&DeviceId, &u16)| request.contains(&format!("device={device} "));
                    let status = says.lock().unwrap().iter().find(of).map_or(500, |(_, &status)| status);
                    asked.lock().unwrap().push(request);
                    let answer =
                        format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        service
    }

    fn say(&self, n: u8, status: u16) {
        self.says.lock().unwrap().insert(id(n), status);
    }

    fn times_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[tokio::test]
async fn the_service_decides_and_is_asked_once_for_each_device() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    fs::write(&token_file, "sesame\n").unwrap();
    let hook = Some(HookConfig { token_file: Some(token_file), ..hook_at(service.address) });
    let allow = Some([id(4)].into());
    let base = Running::start(Config { hook, allow, ..on_loopback() }).await;
    for (n, status) in [(1, 200), (2, 204), (3, 403)] {
        service.say(n, status);
    }
    for _ in 0..2 {
        Client::register(&base, 1).await.ping().await;
        Client::register(&base, 2).await.ping().await;
        let mut refused = Client::ask_to_register(&base, 3).await;
        assert_eq!(refused.read_error_code().await, ErrorCode::NotAllowed);
        Client::register(&base, 4).await.ping().await;
    }
    let asked = service.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 3, "answers are remembered, and the list needs none: {asked:?}");
    let request = &asked[0];
    assert!(request.starts_with(&format!("GET /may?site=7&device={} HTTP/1.1", id(1))), "{request}");
    assert!(request.to_lowercase().contains("authorization: bearer sesame"), "{request}");
}

#[tokio::test]
async fn without_an_answer_nobody_is_let_in_and_those_here_stay() {
    let service = Service::start().await;
    let hook = Some(HookConfig { cache_seconds: 1, ..hook_at(service.address) });
    let base = Running::start(Config { hook, ..on_loopback() }).await;
    service.say(1, 200);
    let mut here = Client::register(&base, 1).await;
    // It answers nonsense, for the one that is here as well.
    service.says.lock().unwrap().clear();
    for n in [2, 3] {
        let mut new = Client::ask_to_register(&base, n).await;
        let error = new.read_error().await;
        assert_eq!((error.code, error.retry_after), (ErrorCode::Busy, 10));
    }
    let asked = service.times_asked();
    until(async || service.times_asked() > asked).await;
    here.ping().await;

    // A service that is not there at all.
    let hook = Some(hook_at(TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()));
    let base = Running::start(Config { hook, ..on_loopback() }).await;
    let mut new = Client::ask_to_register(&base, 1).await;
    assert_eq!(new.read_error_code().await, ErrorCode::Busy);
}

#[tokio::test]
async fn a_device_that_is_no_longer_allowed_by_the_service_goes_when_the_answer_has_aged() {
    let service = Service::start().await;
    let hook = Some(HookConfig { cache_seconds: 1, ..hook_at(service.address) });
    let base = Running::start(Config { hook, ..on_loopback() }).await;
    service.say(1, 200);
    let mut device = Client::register(&base, 1).await;
    device.ping().await;
    service.say(1, 404);
    assert_eq!(device.read_error_code().await, ErrorCode::NotAllowed);
}

#[tokio::test]
async fn a_device_that_leaves_the_file_stays_if_the_service_says_so_and_goes_if_not() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("allow");
    write(&path, &[id(1), id(2)]);
    let hook = Some(hook_at(service.address));
    let base = Running::start(Config { hook, allow_file: Some(path.clone()), ..on_loopback() }).await;
    let (mut stays, mut goes) = (Client::register(&base, 1).await, Client::register(&base, 2).await);
    assert_eq!(service.times_asked(), 0);
    service.say(1, 200);
    service.say(2, 403);
    write(&path, &[]);
    assert_eq!(goes.read_error_code().await, ErrorCode::NotAllowed);
    until(async || service.times_asked() == 2).await;
    stays.ping().await;
}

#[tokio::test]
async fn short_of_memory_no_newcomer_is_taken() {
    let limits = Limits { memory_bytes: Some(1), ..Limits::default() };
    let base = Running::start(Config { limits, ..on_loopback() }).await;
    until(async || base.handle.inspect(0).await.unwrap().short_of_memory).await;
    let mut device = Client::ask_to_register(&base, 1).await;
    let frame = device.read().await;
    let BaseFrame::Error(error) = frame.decode() else { panic!("{frame:?}") };
    assert!(error.code == ErrorCode::Busy && error.text.contains("memory"), "{error:?}");
}
