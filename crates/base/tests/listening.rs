//! What a base says when it cannot have its sockets.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use bowline_base::{BindError, Config, Server};
use bowline_proto::SecretKey;

async fn bind(listen: SocketAddr) -> Result<Server, BindError> {
    let config = Config { listen: vec![listen], ..Config::default() };
    Server::bind(config, SecretKey::from_seed(&[1; 32])).await
}

/// A port that is free for TCP and UDP, as is the one two above it.
async fn free_port() -> SocketAddr {
    loop {
        let port = bind("127.0.0.1:0".parse().unwrap()).await.unwrap().local_addrs()[0].port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if bind(address).await.is_ok() {
            return address;
        }
    }
}

#[tokio::test]
async fn a_tcp_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(address).await.unwrap_err();
    assert!(matches!(error, BindError::InUse { transport: "TCP", .. }), "{error}");
    assert!(error.to_string().contains(&format!("TCP port {}", address.port())), "{error}");
}

#[tokio::test]
async fn a_udp_port_in_use_is_named() {
    let address = free_port().await;
    let _taken = UdpSocket::bind(address).unwrap();
    let error = bind(address).await.unwrap_err();
    assert!(error.to_string().contains(&format!("UDP port {}", address.port())), "{error}");
}

#[tokio::test]
async fn a_second_port_in_use_is_named_with_the_reason_why_it_is_needed() {
    let address = free_port().await;
    let second = SocketAddr::new(address.ip(), address.port() + 2);
    let _taken = UdpSocket::bind(second).unwrap();
    let error = bind(address).await.unwrap_err();
    assert!(matches!(error, BindError::SecondInUse { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("UDP port {}", second.port())), "{text}");
    assert!(text.contains(&format!("beside port {}", address.port())), "{text}");
}

#[tokio::test]
async fn two_bases_on_one_port_are_refused() {
    let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    assert!(matches!(bind(first.local_addrs()[0]).await, Err(BindError::InUse { .. })));
}

#[tokio::test]
async fn an_address_of_another_machine_and_a_port_without_a_second_are_named() {
    let error = bind("192.0.2.1:4477".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, BindError::NoSuchAddress(_)), "{error}");
    let error = bind("127.0.0.1:65535".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, BindError::NoSecondPort(65535)), "{error}");
}
