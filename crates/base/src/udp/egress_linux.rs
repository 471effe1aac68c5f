//! Runs into as few calls as Linux allows: a run is one message with the size to cut it at (GSO), and all messages of a round that can
//! share that size go into one `sendmmsg`.
//!
//! A message that is not longer than the size leaves whole, so single datagrams ride along with runs. When a device takes no runs
//! (EIO, EINVAL) they are sent one by one from then on.

use std::{io::IoSlice, net::SocketAddr, os::fd::AsRawFd as _, sync::Arc};

use bowline_proto::base::Via;
use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, sendmmsg},
};

use super::{
    Port,
    batch::{Batch, Run, Runs},
    port_of,
};

/// Messages of one call. The system's own limit is 1,024.
const MESSAGES: usize = 128;

/// Sends the runs of one worker.
#[derive(Debug)]
pub(crate) struct Egress {
    ports: Vec<Arc<Port>>,
    headers: Vec<Headers>,
    /// No device has refused a run so far.
    runs_pass: bool,
    dropped: u64,
}

/// What the system needs to know of each message; the buffers stay.
#[derive(Debug)]
enum Headers {
    V4(MultiHeaders<SockaddrIn>, Vec<Option<SockaddrIn>>),
    V6(MultiHeaders<SockaddrIn6>, Vec<Option<SockaddrIn6>>),
}

impl Headers {
    fn new(port: &Port) -> Self {
        match (port.local_addr().is_ipv4(), port.is_on_every_address()) {
            (true, false) => {
                Self::V4(MultiHeaders::preallocate(MESSAGES, Some(cmsg_space!(u16))), Vec::new())
            }
            (true, true) => {
                let space = cmsg_space!(u16, libc::in_pktinfo);
                Self::V4(MultiHeaders::preallocate(MESSAGES, Some(space)), Vec::new())
            }
            (false, false) => {
                Self::V6(MultiHeaders::preallocate(MESSAGES, Some(cmsg_space!(u16))), Vec::new())
            }
            (false, true) => {
                let space = cmsg_space!(u16, libc::in6_pktinfo);
                Self::V6(MultiHeaders::preallocate(MESSAGES, Some(space)), Vec::new())
            }
        }
    }
}

impl Egress {
    pub(crate) fn new(ports: Vec<Arc<Port>>) -> Self {
        let headers = ports.iter().map(|port| Headers::new(port)).collect();
        let runs_pass = ports.iter().all(|port| port.state.max_gso_segments() > 1);
        Self { ports, headers, runs_pass, dropped: 0 }
    }

    /// The most datagrams of a run.
    pub(crate) fn most_segments(&self) -> usize {
        let most = self.ports.iter().map(|port| port.state.max_gso_segments()).min().unwrap_or(1);
        if self.runs_pass { most } else { 1 }
    }

    /// Datagrams that the system did not take, since this was asked last.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Sends all runs of a round.
    pub(crate) fn send(&mut self, batch: &Batch) {
        let runs = batch.runs.all();
        if runs.is_empty() {
            return;
        }
        let mut slices = Vec::with_capacity(batch.runs.count_of_pieces());
        let mut ends = Vec::with_capacity(runs.len());
        for run in runs {
            slices.extend(batch.runs.pieces(run).map(|bytes| IoSlice::new(&batch.bytes()[bytes])));
            ends.push(slices.len());
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let messages: Vec<&[IoSlice<'_>]> =
            starts.zip(&ends).map(|(start, &end)| &slices[start..end]).collect();
        let mut done = 0;
        while done < runs.len() {
            let (segment, count) = call(&runs[done..]);
            let rest = done..done + count;
            done += self.call(segment, &runs[rest.clone()], &messages[rest], batch);
        }
    }

    /// One call for messages of one port, source address and segment size; how many are dealt with.
    fn call(&mut self, segment: u16, runs: &[Run], messages: &[&[IoSlice<'_>]], batch: &Batch) -> usize {
        let Some(first) = runs.first() else { return 0 };
        let Some(port) = port_of(&self.ports, &first.via) else { return runs.len() };
        let result = match &mut self.headers[usize::from(first.via.socket.0)] {
            Headers::V4(headers, to) => {
                to.clear();
                to.extend(runs.iter().map(|run| match run.to {
                    SocketAddr::V4(v4) => Some(SockaddrIn::from(v4)),
                    SocketAddr::V6(_) => None,
                }));
                send(port, &first.via, segment, headers, messages, to)
            }
            Headers::V6(headers, to) => {
                to.clear();
                to.extend(runs.iter().map(|run| match run.to {
                    SocketAddr::V6(v6) => Some(SockaddrIn6::from(v6)),
                    SocketAddr::V4(_) => None,
                }));
                send(port, &first.via, segment, headers, messages, to)
            }
        };
        match result {
            Ok(sent) => sent.max(1),
            Err(Errno::EINTR) => 0,
            Err(error) => {
                self.refused(error, first, &batch.runs, batch.bytes());
                1
            }
        }
    }

    /// The system did not take the first message of a call.
    fn refused(&mut self, error: Errno, run: &Run, runs: &Runs, bytes: &[u8]) {
        let Some(port) = port_of(&self.ports, &run.via) else { return };
        if run.count == 1 || !matches!(error, Errno::EIO | Errno::EINVAL) {
            self.dropped += run.count as u64;
            tracing::debug!(to = %run.to, count = run.count, %error, "UDP send");
            return;
        }
        if self.runs_pass {
            self.runs_pass = false;
            tracing::info!(%error, "a network device takes no runs of datagrams: they are sent one by one");
        }
        for datagram in runs.pieces(run).flat_map(|piece| bytes[piece].chunks(run.size)) {
            if port.send(run.via.ip, run.to, datagram, None).is_err() {
                self.dropped += 1;
            }
        }
    }
}

/// How many of the runs at the front share a call, and the segment size they share.
fn call(runs: &[Run]) -> (u16, usize) {
    let Some(first) = runs.first() else { return (0, 0) };
    let mut segment = 0;
    let mut longest_single = 0;
    for (count, run) in runs.iter().enumerate().take(MESSAGES) {
        let fits = match (run.count, segment) {
            (1, 0) => true,
            (1, segment) => run.size <= segment,
            (_, 0) => longest_single <= run.size,
            (_, segment) => run.size == segment,
        };
        if !fits || run.via != first.via {
            return (segment as u16, count);
        }
        match run.count {
            1 => longest_single = longest_single.max(run.size),
            _ => segment = run.size,
        }
    }
    (segment as u16, runs.len().min(MESSAGES))
}

fn send<S: SockaddrLike + Copy>(
    port: &Port,
    via: &Via,
    segment: u16,
    headers: &mut MultiHeaders<S>,
    messages: &[&[IoSlice<'_>]],
    to: &[Option<S>],
) -> Result<usize, Errno> {
    let fd = port.socket.as_raw_fd();
    let size = ControlMessage::UdpGsoSegments(&segment);
    let flags = MsgFlags::empty();
    let (info4, info6);
    let sent = match via.ip.filter(|_| port.is_on_every_address()) {
        None => sendmmsg(fd, headers, messages, to, [size], flags)?,
        Some(std::net::IpAddr::V4(ip)) => {
            let source = libc::in_addr { s_addr: u32::from(ip).to_be() };
            info4 = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: source,
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            sendmmsg(fd, headers, messages, to, [size, ControlMessage::Ipv4PacketInfo(&info4)], flags)?
        }
        Some(std::net::IpAddr::V6(ip)) => {
            info6 = libc::in6_pktinfo { ipi6_ifindex: 0, ipi6_addr: libc::in6_addr { s6_addr: ip.octets() } };
            sendmmsg(fd, headers, messages, to, [size, ControlMessage::Ipv6PacketInfo(&info6)], flags)?
        }
    };
    Ok(sent.count())
}

#[cfg(test)]
mod tests {
    use bowline_proto::base::SocketId;

    use super::*;

    fn calls(runs: &[(usize, usize)]) -> Vec<(u16, usize)> {
        let via = Via { socket: SocketId(0), ip: None };
        let to = SocketAddr::from(([192, 0, 2, 1], 9));
        let runs: Vec<_> = runs.iter().map(|&(size, count)| Run::of(via, to, size, count)).collect();
        let mut done = 0;
        let mut calls = Vec::new();
        while done < runs.len() {
            let (segment, count) = call(&runs[done..]);
            calls.push((segment, count));
            done += count;
        }
        calls
    }

    #[test]
    fn messages_share_a_call_as_long_as_one_segment_size_serves_all() {
        assert_eq!(calls(&[(100, 1), (1_200, 1), (7, 1)]), [(0, 3)]);
        assert_eq!(calls(&[(100, 1), (100, 9), (100, 3), (50, 1)]), [(100, 4)]);
        assert_eq!(calls(&[(200, 1), (100, 9)]), [(0, 1), (100, 1)]);
        assert_eq!(calls(&[(100, 9), (200, 1), (300, 2)]), [(100, 1), (300, 2)]);
        assert_eq!(calls(&[(100, 2), (90, 2)]), [(100, 1), (90, 1)]);
        assert_eq!(calls(&[(100, 1); 300]), [(0, 128), (0, 128), (0, 44)]);
    }
}
