//! Runs into as few calls as Linux allows: a run is one message with the size to cut it at (GSO), and all messages of a round that can
//! share that size go into one `sendmmsg`.
//!
//! A message that is not longer than the size leaves whole, so single datagrams ride along with runs. When a device takes no runs
//! (EIO, EINVAL) they are sent one by one from then on. The system says the same of a run from an address that the machine has no more:
//! what does not leave one by one either says nothing about runs.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd as _,
    sync::Arc,
};

use bowline_proto::base::Via;
use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{
        ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage,
        sendmmsg, sendmsg,
    },
};

use super::{
    Port,
    batch::{Batch, Run, Runs},
    lanes::Lanes,
    lanes_of,
};

/// Messages of one call. The system's own limit is 1,024.
const MESSAGES: usize = 128;

/// A source address that the system chooses.
const UNKNOWN_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const UNKNOWN_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Sends the runs of one worker.
#[derive(Debug)]
pub(crate) struct Egress {
    ports: Vec<Arc<Lanes>>,
    headers: Vec<Headers>,
    /// No device has refused a run so far.
    runs_pass: bool,
    dropped: u64,
}

/// What the system needs to know of each message, by the family of the port's addresses.
#[derive(Debug)]
enum Headers {
    V4(Messages<SockaddrIn>),
    V6(Messages<SockaddrIn6>),
}

/// The buffers for the messages of one call; they stay. What a message is not said to have costs nothing, so single datagrams have
/// headers without a segment size.
#[derive(Debug)]
struct Messages<S> {
    runs: MultiHeaders<S>,
    singles: MultiHeaders<S>,
    to: Vec<Option<S>>,
}

impl<S: SockaddrLike + Copy> Messages<S> {
    /// With room for the source address, where it has to be named.
    fn new(runs: Vec<u8>, singles: Option<Vec<u8>>) -> Self {
        Self {
            runs: MultiHeaders::preallocate(MESSAGES, Some(runs)),
            singles: MultiHeaders::preallocate(MESSAGES, singles),
            to: Vec::with_capacity(MESSAGES),
        }
    }
}

impl Headers {
    fn new(lanes: &Lanes) -> Self {
        match (lanes.local_addr().is_ipv4(), lanes.local_addr().ip().is_unspecified()) {
            (true, false) => Self::V4(Messages::new(cmsg_space!(u16), None)),
            (false, false) => Self::V6(Messages::new(cmsg_space!(u16), None)),
            (true, true) => Self::V4(Messages::new(
                cmsg_space!(u16, libc::in_pktinfo),
                Some(cmsg_space!(libc::in_pktinfo)),
            )),
            (false, true) => Self::V6(Messages::new(
                cmsg_space!(u16, libc::in6_pktinfo),
                Some(cmsg_space!(libc::in6_pktinfo)),
            )),
        }
    }
}

impl Egress {
    pub(crate) fn new(ports: Vec<Arc<Lanes>>) -> Self {
        let headers = ports.iter().map(|lanes| Headers::new(lanes)).collect();
        let runs_pass = ports.iter().all(|lanes| lanes.max_gso_segments() > 1);
        Self { ports, headers, runs_pass, dropped: 0 }
    }

    /// The most datagrams of a run.
    pub(crate) fn most_segments(&self) -> usize {
        let most = self.ports.iter().map(|lanes| lanes.max_gso_segments()).min().unwrap_or(1);
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
        let Some(lanes) = lanes_of(&self.ports, &first.via) else { return runs.len() };
        let port = lanes.to(first.to.ip());
        let count = lanes.together(runs.iter().map(|run| run.to.ip()));
        let (runs, messages) = (&runs[..count], &messages[..count]);
        let result = match &mut self.headers[usize::from(first.via.socket.0)] {
            Headers::V4(with) => {
                with.to.clear();
                with.to.extend(runs.iter().map(|run| match run.to {
                    SocketAddr::V4(v4) => Some(SockaddrIn::from(v4)),
                    SocketAddr::V6(_) => None,
                }));
                send(port, &first.via, segment, with, messages)
            }
            Headers::V6(with) => {
                with.to.clear();
                with.to.extend(runs.iter().map(|run| match run.to {
                    SocketAddr::V6(v6) => Some(SockaddrIn6::from(v6)),
                    SocketAddr::V4(_) => None,
                }));
                send(port, &first.via, segment, with, messages)
            }
        };
        match result {
            Ok(sent) => {
                lanes.took();
                sent.max(1)
            }
            Err(Errno::EINTR) => 0,
            Err(error) => {
                if error == Errno::EAGAIN {
                    lanes.refused();
                }
                self.refused(error, first, &batch.runs, batch.bytes());
                1
            }
        }
    }

    /// The system did not take the first message of a call.
    fn refused(&mut self, error: Errno, run: &Run, runs: &Runs, bytes: &[u8]) {
        let Some(lanes) = lanes_of(&self.ports, &run.via) else { return };
        if run.count == 1 || !matches!(error, Errno::EIO | Errno::EINVAL) {
            self.dropped += run.count as u64;
            tracing::debug!(to = %run.to, count = run.count, %error, "UDP send");
            return;
        }
        let all: Vec<u8> = runs.pieces(run).flat_map(|piece| &bytes[piece]).copied().collect();
        let port = lanes.to(run.to.ip());
        let singles = all.chunks(run.size).map(|datagram| port.send(run.via.ip, run.to, datagram, None));
        let passed = singles.take_while(Result::is_ok).count();
        self.dropped += (run.count - passed) as u64;
        if passed == 0 {
            tracing::debug!(to = %run.to, count = run.count, %error, "UDP send");
        } else if self.runs_pass {
            self.runs_pass = false;
            tracing::info!(%error, "a network device takes no runs of datagrams: they are sent one by one");
        }
    }
}

/// One datagram, or a run of them that lie together. It draws no conclusion from an error, which may be of this destination or this
/// source address alone.
pub(super) fn send_one(
    port: &Port,
    source: Option<IpAddr>,
    to: SocketAddr,
    contents: &[u8],
    segment: Option<usize>,
) -> io::Result<()> {
    let segment = segment.map(|size| u16::try_from(size).unwrap_or(u16::MAX));
    let size = segment.as_ref().map(ControlMessage::UdpGsoSegments);
    let source = source.map(Source::from);
    let with: Vec<_> = size.into_iter().chain(source.as_ref().map(Source::message)).collect();
    let (fd, contents, to) = (port.socket.as_raw_fd(), [IoSlice::new(contents)], SockaddrStorage::from(to));
    loop {
        match sendmsg(fd, &contents, &with, MsgFlags::empty(), Some(&to)) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The address that a datagram leaves from.
enum Source {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl From<IpAddr> for Source {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => {
                let [none, ip] = [0, u32::from(ip).to_be()].map(|s_addr| libc::in_addr { s_addr });
                Self::V4(libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: ip, ipi_addr: none })
            }
            IpAddr::V6(ip) => {
                let ip = libc::in6_addr { s6_addr: ip.octets() };
                Self::V6(libc::in6_pktinfo { ipi6_ifindex: 0, ipi6_addr: ip })
            }
        }
    }
}

impl Source {
    /// Names it to the system.
    fn message(&self) -> ControlMessage<'_> {
        match self {
            Self::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Self::V6(info) => ControlMessage::Ipv6PacketInfo(info),
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
    with: &mut Messages<S>,
    messages: &[&[IoSlice<'_>]],
) -> Result<usize, Errno> {
    let size = ControlMessage::UdpGsoSegments(&segment);
    // These headers have room for a source address, and what an earlier call wrote there: where none is known, that is said.
    let unknown = if port.local_addr().is_ipv4() { UNKNOWN_V4 } else { UNKNOWN_V6 };
    let source = port.is_on_every_address().then(|| Source::from(via.ip.unwrap_or(unknown)));
    let (fd, to, none) = (port.socket.as_raw_fd(), &with.to[..], MsgFlags::empty());
    let sent = match (segment, source.as_ref().map(Source::message)) {
        (0, None) => sendmmsg(fd, &mut with.singles, messages, to, [], none),
        (0, Some(source)) => sendmmsg(fd, &mut with.singles, messages, to, [source], none),
        (_, None) => sendmmsg(fd, &mut with.runs, messages, to, [size], none),
        (_, Some(source)) => sendmmsg(fd, &mut with.runs, messages, to, [size, source], none),
    };
    Ok(sent?.count())
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Duration};

    use bowline_proto::base::SocketId;

    use super::{
        super::{
            batch::{Had, Onward},
            outgoing::Sender,
        },
        *,
    };

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

    /// Lets three datagrams pass through a socket on every address; where each came from, and how many got lost.
    fn pass(egress: &mut Egress, lanes: &Arc<Lanes>, source: Option<IpAddr>) -> (Vec<IpAddr>, u64) {
        let localhost = SocketAddr::new(if lanes.local_addr().is_ipv4() { V4 } else { V6 }, 0);
        let (client, receiver) = (UdpSocket::bind(localhost).unwrap(), UdpSocket::bind(localhost).unwrap());
        receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut batch = Batch::new();
        for _ in 0..3 {
            client.send_to(&[7; 100], (localhost.ip(), lanes.local_addr().port())).unwrap();
        }
        // On the loopback they are there when the call returns.
        while batch.receive(SocketId(0), lanes.to(localhost.ip())) != Had::Nothing {}
        let via = Via { socket: SocketId(0), ip: source };
        let to = receiver.local_addr().unwrap();
        batch.each(egress.most_segments(), |_, _, _| Some(Onward { via, to, skip: 0, prefix: None }));
        egress.send(&batch);
        let mut buffer = [0; 200];
        let came = std::iter::from_fn(|| receiver.recv_from(&mut buffer).ok()).take(3);
        (came.map(|(_, from)| from.ip()).collect(), egress.take_dropped())
    }

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[test]
    fn where_no_source_is_named_the_system_chooses_it_whatever_the_last_one_was() {
        let another = IpAddr::from([127, 0, 0, 2]);
        for (every, chosen, named) in
            [("0.0.0.0:0", V4, &[None, Some(another), None][..]), ("[::]:0", V6, &[None, Some(V6), None])]
        {
            let Ok(socket) = UdpSocket::bind(every) else { continue };
            socket.set_nonblocking(true).unwrap();
            let lanes = Lanes::new(Port::new(socket).unwrap(), Vec::new());
            let mut egress = Egress::new(vec![Arc::clone(&lanes)]);
            let segments = egress.most_segments();
            for &source in named {
                let passed = pass(&mut egress, &lanes, source);
                assert_eq!(passed, (vec![source.unwrap_or(chosen); 3], 0), "{every} {source:?}");
                assert_eq!(egress.most_segments(), segments, "runs still pass");
            }
        }
    }

    #[test]
    fn an_address_that_the_machine_has_no_more_stops_what_leaves_from_it_and_nothing_else() {
        let gone = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])];
        for (every, chosen, gone) in [("0.0.0.0:0", V4, gone[0]), ("[::]:0", V6, gone[1])] {
            let Ok(socket) = UdpSocket::bind(every) else { continue };
            socket.set_nonblocking(true).unwrap();
            let lanes = Lanes::new(Port::new(socket).unwrap(), Vec::new());
            let mut egress = Egress::new(vec![Arc::clone(&lanes)]);
            let segments = egress.most_segments();
            assert_eq!(pass(&mut egress, &lanes, Some(gone)), (vec![], 3), "{every}");
            assert_eq!(egress.most_segments(), segments, "runs still pass");
            assert_eq!(pass(&mut egress, &lanes, None), (vec![chosen; 3], 0), "{every}");

            // The owner of the machine sends by the same socket.
            let (ports, mut sender) = (vec![lanes], Sender::default());
            let receiver = UdpSocket::bind(SocketAddr::new(chosen, 0)).unwrap();
            let mut push = |ip, count| {
                let via = Via { socket: SocketId(0), ip };
                (0..count).for_each(|_| sender.push(&ports, via, receiver.local_addr().unwrap(), &[7; 100]));
                sender.flush(&ports);
                sender.dropped()
            };
            assert_eq!([push(Some(gone), 1), push(Some(gone), 3), push(None, 3)], [1, 4, 4], "{every}");
            assert_eq!(Egress::new(ports).most_segments(), segments, "runs still pass");
        }
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
