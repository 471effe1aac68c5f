//! TCP and Unix sockets as one: connecting, listening, and joining one with a stream.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bowline_quic::quinn::{RecvStream, SendStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

use super::spec::{LOOPBACK, Place};
use crate::{join, streams::StreamError};

/// How long a target may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a port is asked for that is free on both loopback addresses.
const FREE_IN_BOTH: usize = 16;

pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

pub(crate) enum Listener {
    /// At one address, or at both of the loopback.
    Tcp(TcpListener, Option<TcpListener>),
    /// Its file goes with it.
    #[cfg(unix)]
    Unix { listener: UnixListener, _file: Remove },
}

impl Socket {
    pub(crate) async fn connect(place: &Place) -> io::Result<Self> {
        let connecting = async {
            match place {
                Place::Tcp { host, port } => {
                    let socket = TcpStream::connect((host.as_str(), *port)).await?;
                    socket.set_nodelay(true)?;
                    Ok(Self::Tcp(socket))
                }
                #[cfg(unix)]
                Place::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
                #[cfg(not(unix))]
                Place::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
            }
        };
        tokio::time::timeout(CONNECT, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Carries its bytes over a stream, both ways, until both have ended; the bytes that left and that came.
    pub(crate) async fn join(
        self,
        send: &mut SendStream,
        receive: &mut RecvStream,
    ) -> Result<(u64, u64), StreamError> {
        match self {
            Self::Tcp(socket) => joined(socket.into_split(), send, receive).await,
            #[cfg(unix)]
            Self::Unix(socket) => joined(socket.into_split(), send, receive).await,
        }
    }
}

async fn joined(
    (mut from, mut to): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    send: &mut SendStream,
    receive: &mut RecvStream,
) -> Result<(u64, u64), StreamError> {
    join::both((send, receive), &mut from, &mut to).await
}

impl Listener {
    pub(crate) async fn bind(place: &Place) -> io::Result<Self> {
        match place {
            Place::Tcp { host, port } if host == LOOPBACK => Self::on_the_loopback(*port).await,
            Place::Tcp { host, port } => {
                Ok(Self::Tcp(TcpListener::bind((host.as_str(), *port)).await?, None))
            }
            #[cfg(unix)]
            Place::Unix(path) => {
                remove_stale(path).await?;
                Ok(Self::Unix { listener: UnixListener::bind(path)?, _file: Remove(path.clone()) })
            }
            #[cfg(not(unix))]
            Place::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// At both addresses: who connects to `localhost` takes one or the other, and at the other there may be somebody else.
    async fn on_the_loopback(port: u16) -> io::Result<Self> {
        let mut tries = 0;
        loop {
            let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
            match TcpListener::bind((Ipv6Addr::LOCALHOST, v4.local_addr()?.port())).await {
                Ok(v6) => return Ok(Self::Tcp(v4, Some(v6))),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    tries += 1;
                    if port != 0 || tries == FREE_IN_BOTH {
                        return Err(error);
                    }
                }
                // There is no IPv6.
                Err(_) => return Ok(Self::Tcp(v4, None)),
            }
        }
    }

    /// Where it listens: with the port that the system chose, if it was left to it.
    pub(crate) fn address(&self, asked: &Place) -> String {
        match self {
            Self::Tcp(listener, _) => {
                listener.local_addr().as_ref().map_or_else(|_| asked.to_string(), SocketAddr::to_string)
            }
            #[cfg(unix)]
            Self::Unix { .. } => asked.to_string(),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(first, second) => {
                let at_second = async {
                    match second {
                        Some(second) => second.accept().await,
                        None => std::future::pending().await,
                    }
                };
                let (socket, _) = tokio::select! {
                    accepted = first.accept() => accepted,
                    accepted = at_second => accepted,
                }?;
                socket.set_nodelay(true)?;
                Ok(Socket::Tcp(socket))
            }
            #[cfg(unix)]
            Self::Unix { listener, .. } => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }
}

/// A socket that nobody listens at any more is in the way; one where somebody does stays.
#[cfg(unix)]
async fn remove_stale(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Removes a socket's file in the end.
#[cfg(unix)]
pub(crate) struct Remove(std::path::PathBuf);

#[cfg(unix)]
impl Drop for Remove {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
