//! What a command reports of its one connection, for programs (`--json`): where standard output carries data, on standard error.

use std::{
    io::Write as _,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use bowline::DeviceId;
use bowline_quic::quinn::Connection;
use serde::Serialize;
use tokio::io::{AsyncRead, ReadBuf};

use crate::{output, streams::Streams};

/// A connection that stands, and is reported of if that was asked for.
pub(crate) struct Report<'a> {
    streams: &'a Streams,
    connection: &'a Connection,
    device: DeviceId,
    since: Instant,
    json: bool,
}

#[derive(Serialize)]
struct Begun {
    device: String,
    path: &'static str,
    address: Option<SocketAddr>,
}

#[derive(Serialize)]
struct Ended {
    device: String,
    sent: u64,
    received: u64,
    seconds: f64,
    path: &'static str,
    address: Option<SocketAddr>,
}

impl<'a> Report<'a> {
    /// It is connected.
    pub(crate) fn begin(
        streams: &'a Streams,
        connection: &'a Connection,
        device: DeviceId,
        json: bool,
    ) -> Self {
        let report = Self { streams, connection, device, since: Instant::now(), json };
        let (path, address) = report.way();
        report.print(&Begun { device: device.to_string(), path, address });
        report
    }

    /// All of it was carried: so many bytes there, and so many here.
    pub(crate) fn end(self, (sent, received): (u64, u64)) {
        let (path, address) = self.way();
        let seconds = self.since.elapsed().as_secs_f64();
        self.print(&Ended { device: self.device.to_string(), sent, received, seconds, path, address });
    }

    fn way(&self) -> (&'static str, Option<SocketAddr>) {
        let path = self.streams.endpoint.path(self.connection);
        (output::path_name(path), output::path_address(path))
    }

    fn print(&self, line: &impl Serialize) {
        if let (true, Ok(text)) = (self.json, serde_json::to_string(line)) {
            // Where standard error is closed there is nobody to tell.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }
}

/// Counts what was read.
pub(crate) struct Counted<R> {
    pub(crate) inner: R,
    pub(crate) read: u64,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.read += (buf.filled().len() - before) as u64;
        polled
    }
}
