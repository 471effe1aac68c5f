//! One TCP connection to a base: a task that connects, reads frames and writes what waits in its [`Outbox`].
//!
//! Life: connecting, standing, flushing after the machine closed it, gone. The task reports to the driver over a
//! bounded channel ([`Report`]): a driver that is busy holds the reader up, and TCP then the base. It knows frames,
//! not what is in them; whether a connection is needed, and when it has gone silent, is the machine's to say.

mod outbox;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bowline_proto::{
    host::{CloseReason, ConnId, Interface},
    wire::frame::Frames,
};
use bytes::Bytes;
pub(crate) use outbox::{Outbox, Refused};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    config::{CLOSE_FLUSH, TCP_CONNECT, TCP_LINGER, TCP_READ, TCP_UNSENT},
    network,
};

/// What a connection has to say.
#[derive(Debug)]
pub(crate) enum Report {
    Connected,
    Frame(Bytes),
    Closed(CloseReason),
}

/// Where to connect.
#[derive(Debug)]
pub(crate) struct Way {
    to: SocketAddr,
    /// From which own address, by which interface; `None` is the system's choice.
    source: Option<IpAddr>,
    interface: Option<String>,
}

impl Way {
    pub(crate) fn of(source: Option<IpAddr>, to: SocketAddr, interfaces: &[Interface]) -> Self {
        let index = source.and_then(|source| network::interface_for(interfaces, source, to));
        let interface = interfaces.iter().find(|interface| Some(interface.index) == index);
        Self { to, source, interface: interface.map(|interface| interface.name.clone()) }
    }
}

/// Runs a connection from connecting to its end. Once the outbox is closed, nothing is reported any more.
pub(crate) async fn run<T: From<(ConnId, Report)>>(
    conn: ConnId,
    way: Way,
    outbox: Arc<Outbox>,
    reports: mpsc::Sender<T>,
) {
    let stream = tokio::select! {
        connected = connect(way) => connected,
        () = outbox.closed() => return,
    };
    let end = match stream {
        Ok(stream) => {
            let Ok(()) = reports.send((conn, Report::Connected).into()).await else { return };
            serve(conn, stream, &outbox, &reports).await
        }
        Err(error) => Some(CloseReason::Refused(error.to_string())),
    };
    outbox.die();
    if let Some(reason) = end {
        // It fails when the driver has ended, which needs no report.
        let _ = reports.send((conn, Report::Closed(reason)).into()).await;
    }
}

async fn connect(Way { to, source, interface }: Way) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(&socket).set_tcp_notsent_lowat(TCP_UNSENT)?;
    #[cfg(not(target_os = "linux"))]
    socket.set_send_buffer_size(TCP_UNSENT)?;
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(&socket).set_tcp_mss(crate::config::TCP_SEGMENT) {
        tracing::debug!("segments may be too long for some paths: {error}");
    }
    if let Some(source) = source {
        // A route may lead from that address by that interface as it is. Linux before 5.7 lets root alone name one.
        if let Err(error) = by_interface(&socket, interface.as_deref()) {
            tracing::debug!("cannot connect by {interface:?}: {error}");
        }
        socket.bind((source, 0).into())?;
    }
    match timeout(TCP_CONNECT, socket.connect(to)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
    }
}

#[cfg(target_os = "linux")]
fn by_interface(socket: &TcpSocket, interface: Option<&str>) -> io::Result<()> {
    socket2::SockRef::from(socket).bind_device(interface.map(str::as_bytes))
}

/// Elsewhere the address has to do.
#[cfg(not(target_os = "linux"))]
fn by_interface(_: &TcpSocket, _: Option<&str>) -> io::Result<()> {
    Ok(())
}

/// Reads and writes until one of the two ends; `None` when the machine closed the connection.
async fn serve<T: From<(ConnId, Report)>>(
    conn: ConnId,
    stream: TcpStream,
    outbox: &Outbox,
    reports: &mpsc::Sender<T>,
) -> Option<CloseReason> {
    let (mut reader, mut writer) = stream.into_split();
    tokio::select! {
        reason = read(conn, &mut reader, reports) => return Some(reason),
        written = write(&mut writer, outbox) => if let Err(error) = written {
            return Some(CloseReason::Lost(error.to_string()));
        },
        () = overdue(outbox) => return None,
    }
    linger(reader, writer).await;
    None
}

/// The machine has closed the connection, and what was to be written before has had its time: a base that is gone takes nothing
/// more, and the system would go on trying for a quarter of an hour.
async fn overdue(outbox: &Outbox) {
    outbox.closed().await;
    sleep(CLOSE_FLUSH).await;
}

async fn read<T: From<(ConnId, Report)>>(
    conn: ConnId,
    reader: &mut OwnedReadHalf,
    reports: &mpsc::Sender<T>,
) -> CloseReason {
    let mut frames = Frames::default();
    loop {
        frames.buffer().reserve(TCP_READ);
        match reader.read_buf(frames.buffer()).await {
            Ok(0) => return CloseReason::Lost("the base closed the connection".to_owned()),
            Ok(_) => {}
            Err(error) => return CloseReason::Lost(error.to_string()),
        }
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => {
                    if reports.send((conn, Report::Frame(frame)).into()).await.is_err() {
                        // The driver is ending. What is still to be written must not be cut off.
                        return std::future::pending().await;
                    }
                }
                Ok(None) => break,
                Err(malformed) => return CloseReason::Malformed(malformed),
            }
        }
    }
}

/// Writes all that waits in one go, again and again, until the outbox is closed and empty.
async fn write(writer: &mut OwnedWriteHalf, outbox: &Outbox) -> io::Result<()> {
    let mut batch = Vec::new();
    while outbox.take(&mut batch).await {
        writer.write_all(&batch).await?;
        outbox.written();
    }
    Ok(())
}

/// Ends the sending side and waits for the base to end its own: a socket that is dropped with unread bytes resets
/// the connection, and what was just written might never be read.
async fn linger(mut reader: OwnedReadHalf, mut writer: OwnedWriteHalf) {
    let _ = timeout(TCP_LINGER, async {
        writer.shutdown().await?;
        let mut ignored = vec![0; TCP_READ];
        while reader.read(&mut ignored).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use bowline_proto::{DeviceId, wire::frame};
    use tokio::{net::TcpListener, task::JoinHandle};

    use super::*;

    struct Peer {
        listener: TcpListener,
        outbox: Arc<Outbox>,
        reports: mpsc::Receiver<(ConnId, Report)>,
        task: JoinHandle<()>,
    }

    async fn start() -> Peer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let outbox = Arc::new(Outbox::default());
        let (sender, reports) = mpsc::channel(4);
        let to = listener.local_addr().unwrap();
        let task = tokio::spawn(run(ConnId(7), Way::of(None, to, &[]), Arc::clone(&outbox), sender));
        Peer { listener, outbox, reports, task }
    }

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut out = Vec::new();
        frame::write(&mut out, |out| out.resize(out.len() + length, kind));
        out
    }

    #[tokio::test]
    async fn frames_in_pieces_arrive_whole_and_in_order() {
        let mut peer = start().await;
        let (mut stream, _) = peer.listener.accept().await.unwrap();
        assert!(matches!(peer.reports.recv().await, Some((ConnId(7), Report::Connected))));
        let bytes = [frame(1, 1), frame(2, 16_384), frame(3, 300)].concat();
        let writer = tokio::spawn(async move {
            for piece in bytes.chunks(1000) {
                stream.write_all(piece).await.unwrap();
            }
            stream
        });
        for (kind, length) in [(1, 1), (2, 16_384), (3, 300)] {
            let Some((_, Report::Frame(frame))) = peer.reports.recv().await else {
                panic!("no frame {kind}")
            };
            assert_eq!(frame, vec![kind; length]);
        }
        drop(writer.await.unwrap());
        assert!(matches!(peer.reports.recv().await, Some((_, Report::Closed(CloseReason::Lost(_))))));
    }

    #[tokio::test]
    async fn a_lost_framing_closes_the_connection() {
        let mut peer = start().await;
        let (mut stream, _) = peer.listener.accept().await.unwrap();
        stream.write_all(&[0, 0, 1]).await.unwrap();
        assert!(matches!(peer.reports.recv().await, Some((_, Report::Connected))));
        assert!(matches!(peer.reports.recv().await, Some((_, Report::Closed(CloseReason::Malformed(_))))));
        peer.task.await.unwrap();
    }

    #[tokio::test]
    async fn a_refused_connection_is_reported_in_words() {
        let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
        let (sender, mut reports) = mpsc::channel::<(ConnId, Report)>(4);
        tokio::spawn(run(ConnId(1), Way::of(None, unused, &[]), Arc::new(Outbox::default()), sender));
        let Some((_, Report::Closed(CloseReason::Refused(words)))) = reports.recv().await else {
            panic!("it was not refused")
        };
        assert!(!words.is_empty());
    }

    #[tokio::test]
    async fn what_was_written_before_closing_is_sent_and_nothing_is_reported_after() {
        let mut peer = start().await;
        let (mut stream, _) = peer.listener.accept().await.unwrap();
        assert!(matches!(peer.reports.recv().await, Some((_, Report::Connected))));
        let to = DeviceId::from_bytes([9; 14]);
        peer.outbox.data(to, b"data").unwrap();
        peer.outbox.control(&frame(0x19, 1)).unwrap();
        peer.outbox.close();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        let mut data = Vec::new();
        frame::write(&mut data, |out| {
            out.push(0x20);
            out.extend_from_slice(to.as_bytes());
            out.extend_from_slice(b"data");
        });
        assert_eq!(got, [frame(0x19, 1), data].concat());
        drop(stream);
        peer.task.await.unwrap();
        assert!(peer.reports.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_connection_that_is_closed_ends_though_the_base_takes_nothing_more() {
        let mut peer = start().await;
        let (_unread, _) = peer.listener.accept().await.unwrap();
        assert!(matches!(peer.reports.recv().await, Some((_, Report::Connected))));
        let message = [7; 16_000];
        while timeout(TCP_LINGER, peer.outbox.room(message.len())).await.is_ok() {
            peer.outbox.data(DeviceId::from_bytes([9; 14]), &message).unwrap();
        }
        peer.outbox.close();
        timeout(CLOSE_FLUSH * 5, peer.task).await.expect("it holds its socket no longer").unwrap();
    }
}
